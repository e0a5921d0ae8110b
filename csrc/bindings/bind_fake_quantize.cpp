#include <torch/csrc/utils/pybind.h>

#include <algorithm>
#include <optional>
#include <vector>

#include "bindings/bindings.h"
#include "bindings/parallel.h"
#include "bindings/tensor_views.h"
#include "observers/fake_quantize.h"

namespace py = pybind11;

namespace pyquant::python {
namespace {

constexpr std::int64_t kPart = 16384;   // values that are handled in one go
constexpr std::int64_t kGrain = 65536;  // values that are worth another thread

// How the values of a dense tensor lie in memory: [outer, channels, inner].
struct Planes {
  std::int64_t channels, inner;
};

// None if the channels' values do not lie in such planes.
std::optional<Planes> planes_of(const at::Tensor& x, std::optional<std::int64_t> axis) {
  const bool dense = x.is_non_overlapping_and_dense();
  if (!axis.has_value()) {
    return dense ? std::optional(Planes{1, x.numel()}) : std::nullopt;
  }
  if (*axis < 0 || *axis >= x.dim()) {
    throw InvalidInputError("the axis of the channels is not a dimension of the tensor");
  }
  const std::int64_t channels = x.size(*axis);
  if (x.is_contiguous()) {
    return Planes{channels, c10::multiply_integers(x.sizes().slice(*axis + 1))};
  }
  if (dense && x.stride(*axis) * channels == x.numel()) {  // the outermost dimension in memory
    return Planes{channels, x.stride(*axis)};
  }
  return std::nullopt;
}

// The grid of every channel.
struct ChannelGrids {
  at::Tensor scale, zero_point;  // float32 and int64 [channels]
  Grid grid;

  ChannelGrids(const at::Tensor& scales, const at::Tensor& zero_points, const Grid& integers,
               std::int64_t channels)
      : scale(scales.contiguous()), zero_point(zero_points.contiguous()), grid(integers) {
    if (scale.scalar_type() != at::kFloat || zero_point.scalar_type() != at::kLong ||
        scale.numel() != channels || zero_point.numel() != channels) {
      throw InvalidInputError("scale and zero point must be float32 and int64 [" +
                              std::to_string(channels) + "]");
    }
  }

  GridParams operator[](std::int64_t channel) const {
    return {scale.const_data_ptr<float>()[channel],
            static_cast<std::int32_t>(zero_point.const_data_ptr<std::int64_t>()[channel])};
  }
};

void check(const at::Tensor& x) {
  if (!x.device().is_cpu() || x.layout() != at::kStrided || x.scalar_type() != at::kFloat) {
    throw InvalidInputError("fake quantization takes float32 tensors in CPU memory");
  }
}

// Calls visit(part, channel, offset, count) for parts of all values. Which parts there are does not
// depend on the number of threads.
template <typename Visit>
void for_parts(std::int64_t values, Planes planes, const Visit& visit) {
  if (values == 0) {
    return;
  }
  const std::int64_t parts = (planes.inner + kPart - 1) / kPart;
  const std::int64_t size = std::min(planes.inner, kPart);
  parallel_for(values / planes.inner * parts, std::max<std::int64_t>(kGrain / size, 1),
               [&](std::int64_t begin, std::int64_t end) {
                 for (std::int64_t part = begin; part < end; ++part) {
                   const std::int64_t row = part / parts;
                   const std::int64_t offset = part % parts * kPart;
                   visit(part, row % planes.channels, row * planes.inner + offset,
                         std::min(kPart, planes.inner - offset));
                 }
               });
}

at::Tensor fake_quantize(const at::Tensor& x, const at::Tensor& scale, const at::Tensor& zero_point,
                         const Grid& grid, std::optional<std::int64_t> axis) {
  check(x);
  const std::optional<Planes> planes = planes_of(x, axis);
  const at::Tensor y = at::empty_like(x);
  if (!planes.has_value()) {
    return y.copy_(pyquant::python::fake_quantize(x.contiguous(), scale, zero_point, grid, axis));
  }
  const ChannelGrids grids(scale, zero_point, grid, planes->channels);
  const auto* from = x.const_data_ptr<float>();
  auto* to = y.data_ptr<float>();
  for_parts(x.numel(), *planes,
            [&](std::int64_t, std::int64_t channel, std::int64_t offset, std::int64_t count) {
              pyquant::fake_quantize({from + offset, static_cast<std::size_t>(count)},
                                     grids[channel], grid, to + offset);
            });
  return y;
}

std::pair<at::Tensor, at::Tensor> fake_quantize_backward(const at::Tensor& x, const at::Tensor& dy,
                                                         const at::Tensor& scale,
                                                         const at::Tensor& zero_point,
                                                         const Grid& grid,
                                                         std::optional<std::int64_t> axis) {
  check(x);
  check(dy);
  if (x.sizes() != dy.sizes()) {
    throw InvalidInputError("a gradient has another shape than its tensor");
  }
  const std::optional<Planes> planes = planes_of(x, axis);
  const at::Tensor dx = at::empty_like(x);
  if (!planes.has_value()) {
    auto [gradient, sums] = pyquant::python::fake_quantize_backward(x.contiguous(), dy.contiguous(),
                                                                    scale, zero_point, grid, axis);
    return {dx.copy_(gradient), sums};
  }
  const ChannelGrids grids(scale, zero_point, grid, planes->channels);
  const at::Tensor same = dy.strides() == x.strides() ? dy : at::empty_like(x).copy_(dy);
  const auto* values = x.const_data_ptr<float>();
  const auto* from = same.const_data_ptr<float>();
  auto* to = dx.data_ptr<float>();
  struct Sum {
    std::int64_t channel;
    float value;
  };
  const std::int64_t rows = x.numel() == 0 ? 0 : x.numel() / planes->inner;
  std::vector<Sum> sums(static_cast<std::size_t>(rows * ((planes->inner + kPart - 1) / kPart)));
  for_parts(x.numel(), *planes,
            [&](std::int64_t part, std::int64_t channel, std::int64_t offset, std::int64_t count) {
              sums[static_cast<std::size_t>(part)] = {
                  channel, pyquant::fake_quantize_backward(
                               {values + offset, static_cast<std::size_t>(count)}, from + offset,
                               grids[channel], grid, to + offset)};
            });
  const at::Tensor dscale = at::zeros({planes->channels}, at::kDouble);
  for (const Sum& sum : sums) {
    dscale.data_ptr<double>()[sum.channel] += sum.value;
  }
  return {dx, dscale.to(at::kFloat)};
}

}  // namespace

void bind_fake_quantize(py::module_& module) {
  module.def(
      "fake_quantize", &fake_quantize, py::arg("x"), py::arg("scale"), py::arg("zero_point"),
      py::arg("grid"), py::arg("axis"), py::call_guard<py::gil_scoped_release>(),
      "x, float32, quantized and dequantized, in x's own memory format. scale, float32, and\n"
      "zero_point, int64, are [1], or [C] for the channels of dimension `axis`.");
  module.def("fake_quantize_backward", &fake_quantize_backward, py::arg("x"), py::arg("dy"),
             py::arg("scale"), py::arg("zero_point"), py::arg("grid"), py::arg("axis"),
             py::call_guard<py::gil_scoped_release>(),
             "The straight-through gradient of x, and the gradient of the scale, like the scale.");
}

}  // namespace pyquant::python
