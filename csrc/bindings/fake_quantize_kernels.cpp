// The CPU kernels of the operators that fake_quantize_autograd.cpp declares.
#include <ATen/ATen.h>
#include <torch/library.h>

#include <cmath>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "bindings/planes.h"
#include "observers/fake_quantize.h"
#include "observers/min_max.h"

namespace pyquant::python {
namespace {

void check_values(const at::Tensor& x) {
  TORCH_CHECK_TYPE(
      x.device().is_cpu() && x.layout() == at::kStrided && x.scalar_type() == at::kFloat,
      "fake quantization takes float32 tensors in CPU memory");
}

// x with no gaps in memory, in the order that empty_like gives it.
at::Tensor dense(const at::Tensor& x) {
  return x.is_non_overlapping_and_dense() ? x : at::empty_like(x).copy_(x);
}

at::Tensor with_strides(const at::Tensor& x, at::IntArrayRef strides) {
  return x.strides() == strides ? x : at::empty_strided(x.sizes(), strides, x.options()).copy_(x);
}

// The grids of all channels, for reading or writing.
struct ChannelGrids {
  float* scale;
  std::int64_t* zero_point;
  Grid grid;

  GridParams operator[](std::int64_t channel) const {
    return {scale[channel], static_cast<std::int32_t>(zero_point[channel])};
  }
};

template <typename T>
T* channel_values(const at::Tensor& values, const Planes& planes, const char* what) {
  TORCH_CHECK_VALUE(values.device().is_cpu() && values.is_contiguous() &&
                        values.scalar_type() == c10::CppTypeToScalarType<T>::value &&
                        values.numel() == planes.channels,
                    what, " must be ", c10::CppTypeToScalarType<T>::value, " [", planes.channels,
                    "] in CPU memory");
  return values.mutable_data_ptr<T>();
}

ChannelGrids channel_grids(const at::Tensor& scale, const at::Tensor& zero_point,
                           std::int64_t quant_min, std::int64_t quant_max, bool symmetric,
                           const Planes& planes) {
  return {channel_values<float>(scale, planes, "the scale"),
          channel_values<std::int64_t>(zero_point, planes, "the zero point"),
          {static_cast<std::int32_t>(quant_min), static_cast<std::int32_t>(quant_max), symmetric}};
}

at::Tensor rounded(const at::Tensor& zero_point) {
  return zero_point.is_floating_point() ? zero_point.round().to(at::kLong) : zero_point;
}

using Rounded = std::tuple<at::Tensor, at::Tensor>;  // the values, and the bits of what passed

Rounded round_to(const ChannelGrids& grids, const at::Tensor& x, const Planes& planes) {
  at::Tensor y = at::empty_like(x);
  at::Tensor passed = at::empty({planes.rows, planes.row_bytes()}, at::kByte);
  const auto* from = x.const_data_ptr<float>();
  auto* to = y.mutable_data_ptr<float>();
  auto* bits = passed.mutable_data_ptr<std::uint8_t>();
  Parts(planes).each_backwards([&](const Part& part) {
    fake_quantize({from + part.offset, static_cast<std::size_t>(part.count)}, grids[part.channel],
                  grids.grid, to + part.offset, bits + part.bits);
  });
  return {y, passed};
}

c10::SmallVector<Extremes, 1> find_extremes(const at::Tensor& x, const Planes& planes,
                                            Interval interval) {
  const Parts parts(planes);
  c10::SmallVector<Extremes, 1> found(static_cast<std::size_t>(parts.count()));
  const auto* values = x.const_data_ptr<float>();
  try {
    parts.each([&](const Part& part) {
      found[static_cast<std::size_t>(part.index)] =
          min_max({values + part.offset, static_cast<std::size_t>(part.count)}, interval);
    });
  } catch (const NotFiniteError& error) {
    TORCH_CHECK_VALUE(false, error.what());
  }
  c10::SmallVector<Extremes, 1> channels(static_cast<std::size_t>(planes.channels));
  for (std::int64_t index = 0; index < parts.count(); ++index) {
    channels[static_cast<std::size_t>(parts[index].channel)].add(
        found[static_cast<std::size_t>(index)]);
  }
  return channels;
}

// What is known of a range after a batch's extremes.
Extremes move(Extremes known, Extremes batch, std::optional<double> averaging_constant) {
  if (!averaging_constant.has_value()) {
    known.add(batch);
    return known;
  }
  if (known.empty() || *averaging_constant >= 1.0) {
    return batch;
  }
  const auto weight = static_cast<float>(*averaging_constant);
  return {known.min + weight * (batch.min - known.min),
          known.max + weight * (batch.max - known.max)};
}

// The bias of a channel whose weights are all 0 is rounded by its scale, too.
void scale_channels_of_zeros(const float* low, const float* high, std::int64_t channels,
                             float* scale) {
  float largest = 0.0F;
  for (std::int64_t channel = 0; channel < channels; ++channel) {
    if (low[channel] != high[channel] || low[channel] != 0.0F) {
      largest = std::max(largest, scale[channel]);
    }
  }
  for (std::int64_t channel = 0; channel < channels && largest > 0.0F; ++channel) {
    if (low[channel] == 0.0F && high[channel] == 0.0F) {
      scale[channel] = largest;
    }
  }
}

Rounded observe_fake_quantize(const at::Tensor& x, const at::Tensor& low, const at::Tensor& high,
                              const at::Tensor& scale, const at::Tensor& zero_point,
                              const std::optional<at::Tensor>& extremes, double floor,
                              double ceiling, std::optional<double> averaging_constant,
                              std::int64_t quant_min, std::int64_t quant_max, bool symmetric,
                              std::optional<std::int64_t> axis) {
  check_values(x);
  const at::Tensor values = dense(x);
  const Planes planes = planes_of(values, axis);
  auto* lows = channel_values<float>(low, planes, "the lowest value");
  auto* highs = channel_values<float>(high, planes, "the highest value");
  const ChannelGrids grids =
      channel_grids(scale, zero_point, quant_min, quant_max, symmetric, planes);
  c10::SmallVector<Extremes, 1> batch;
  if (extremes.has_value()) {
    TORCH_CHECK_VALUE(extremes->scalar_type() == at::kFloat && extremes->is_contiguous() &&
                          extremes->numel() == 2 * planes.channels,
                      "the extremes must be float32 [2, ", planes.channels, "]");
    const auto* given = extremes->const_data_ptr<float>();
    for (std::int64_t channel = 0; channel < planes.channels; ++channel) {
      batch.push_back({given[channel], given[planes.channels + channel]});
    }
  } else {
    batch = find_extremes(values, planes, {static_cast<float>(floor), static_cast<float>(ceiling)});
  }
  for (std::int64_t channel = 0; channel < planes.channels; ++channel) {
    const Extremes range = move({lows[channel], highs[channel]},
                                batch[static_cast<std::size_t>(channel)], averaging_constant);
    const GridParams params = choose_qparams(range.min, range.max, grids.grid);
    lows[channel] = range.min;
    highs[channel] = range.max;
    grids.scale[channel] = params.scale;
    grids.zero_point[channel] = params.zero_point;
  }
  if (axis.has_value()) {
    scale_channels_of_zeros(lows, highs, planes.channels, grids.scale);
  }
  for (const at::Tensor& state : {low, high, scale, zero_point}) {
    state.unsafeGetTensorImpl()->bump_version();
  }
  return round_to(grids, values, planes);
}

Rounded fake_quantize_op(const at::Tensor& x, const at::Tensor& scale, const at::Tensor& zero_point,
                         std::int64_t quant_min, std::int64_t quant_max,
                         std::optional<std::int64_t> axis, std::int64_t /*features*/) {
  check_values(x);
  const at::Tensor values = dense(x);
  const Planes planes = planes_of(values, axis);
  const at::Tensor zero_points = rounded(zero_point);
  const ChannelGrids grids = channel_grids(scale, zero_points, quant_min, quant_max, false, planes);
  for (std::int64_t channel = 0; channel < planes.channels; ++channel) {
    if (std::isinf(grids.scale[channel])) {
      return {values.clone(), at::full({planes.rows, planes.row_bytes()}, 255, at::kByte)};
    }
  }
  return round_to(grids, values, planes);
}

at::Tensor pass_gradient_op(const at::Tensor& dy, const at::Tensor& passed,
                            at::IntArrayRef strides) {
  check_values(dy);
  const at::Tensor gradient = with_strides(dy, strides);
  at::Tensor dx = at::empty_strided(dy.sizes(), strides, dy.options());
  const std::int64_t rows = passed.size(0);
  const std::int64_t inner = rows == 0 ? 0 : dy.numel() / rows;
  TORCH_CHECK_VALUE(dx.is_non_overlapping_and_dense() && passed.is_contiguous() &&
                        passed.scalar_type() == at::kByte && rows * inner == dy.numel() &&
                        passed.numel() == rows * ((inner + 7) / 8),
                    "a gradient has another shape than its tensor");
  const auto* from = gradient.const_data_ptr<float>();
  const auto* bits = passed.const_data_ptr<std::uint8_t>();
  auto* to = dx.mutable_data_ptr<float>();
  Parts({1, rows, inner}).each([&](const Part& part) {
    pass_gradient({from + part.offset, static_cast<std::size_t>(part.count)}, bits + part.bits,
                  to + part.offset);
  });
  return dx;
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> learned_step_backward(
    const at::Tensor& x, const at::Tensor& dy, const at::Tensor& scale,
    const at::Tensor& zero_point, std::int64_t quant_min, std::int64_t quant_max,
    std::optional<std::int64_t> axis, std::int64_t features) {
  check_values(x);
  check_values(dy);
  TORCH_CHECK_VALUE(x.sizes() == dy.sizes(), "a gradient has another shape than its tensor");
  const at::Tensor values = dense(x);
  const Planes planes = planes_of(values, axis);
  const at::Tensor zero_points = rounded(zero_point);
  const ChannelGrids grids = channel_grids(scale, zero_points, quant_min, quant_max, false, planes);
  at::Tensor dx = at::empty_like(values);
  const at::Tensor gradient = with_strides(dy, dx.strides());
  const auto* at_x = values.const_data_ptr<float>();
  const auto* from = gradient.const_data_ptr<float>();
  auto* to = dx.mutable_data_ptr<float>();
  const Parts parts(planes);
  std::vector<float> sums(static_cast<std::size_t>(parts.count()));
  parts.each([&](const Part& part) {
    sums[static_cast<std::size_t>(part.index)] = fake_quantize_backward(
        {at_x + part.offset, static_cast<std::size_t>(part.count)}, from + part.offset,
        grids[part.channel], grids.grid, to + part.offset);
  });
  std::vector<double> totals(static_cast<std::size_t>(planes.channels));
  for (std::int64_t index = 0; index < parts.count(); ++index) {
    totals[static_cast<std::size_t>(parts[index].channel)] += sums[static_cast<std::size_t>(index)];
  }
  at::Tensor dscale = at::empty_like(scale);
  const double divisor = std::sqrt(static_cast<double>(features) * static_cast<double>(quant_max));
  for (std::int64_t channel = 0; channel < planes.channels; ++channel) {
    dscale.mutable_data_ptr<float>()[channel] =
        static_cast<float>(totals[static_cast<std::size_t>(channel)] / divisor);
  }
  if (!zero_point.is_floating_point()) {
    return {dx, dscale, at::zeros_like(dscale)};
  }
  // A step of the zero point moves what is clamped by -scale, and the rest not at all.
  const at::Tensor clamped = dx - gradient;
  const at::Tensor rows = axis.has_value() ? clamped.transpose(0, *axis) : clamped;
  return {dx, dscale, rows.reshape({planes.channels, -1}).sum(1) * scale / divisor};
}

}  // namespace

TORCH_LIBRARY_IMPL(pyquant, CPU, kernels) {
  kernels.impl("observe_fake_quantize", &observe_fake_quantize);
  kernels.impl("fake_quantize", &fake_quantize_op);
  kernels.impl("pass_gradient", &pass_gradient_op);
  kernels.impl("learned_step_backward", &learned_step_backward);
}

}  // namespace pyquant::python
