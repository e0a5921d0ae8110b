#include "engines/reference/reference_engine.h"
#include "quant/requantize.h"

namespace pyquant::reference {
namespace {

// The outer, channel and pixel counts of a float32 tensor: NCHW for rank 4, else one "channel".
struct Planes {
  std::int64_t batch, channels, pixels;
};

Planes planes_of(const Shape& nchw) {
  if (nchw.rank() == 4) {
    return {nchw[0], nchw[1], nchw[2] * nchw[3]};
  }
  return {1, 1, nchw.elements()};
}

template <typename Visit>
void for_each_element(const Planes& planes, Visit visit) {
  for (std::int64_t n = 0; n < planes.batch; ++n) {
    for (std::int64_t c = 0; c < planes.channels; ++c) {
      for (std::int64_t p = 0; p < planes.pixels; ++p) {
        visit((n * planes.channels + c) * planes.pixels + p,
              (n * planes.pixels + p) * planes.channels + c);
      }
    }
  }
}

}  // namespace

void run_quantize(const Operator& op, std::span<const ConstTensorView> inputs,
                  const TensorView& output) {
  const auto* x = static_cast<const float*>(inputs[0].data);
  auto* y = static_cast<std::uint8_t*>(output.data);
  const QParams& qparams = op.output.qparams;
  const float inverse_scale = inverse_of(qparams.scale);
  for_each_element(planes_of(inputs[0].shape), [&](std::int64_t nchw, std::int64_t nhwc) {
    y[nhwc] = round_to_uint8(x[nchw] * inverse_scale, qparams.zero_point, 0, 255);
  });
}

void run_dequantize(const Operator& op, std::span<const ConstTensorView> inputs,
                    const TensorView& output) {
  auto* y = static_cast<float*>(output.data);
  const Planes planes = planes_of(output.shape);
  if (inputs[0].dtype == DType::kFloat32) {
    const auto* x = static_cast<const float*>(inputs[0].data);
    for_each_element(planes, [&](std::int64_t nchw, std::int64_t nhwc) { y[nchw] = x[nhwc]; });
    return;
  }
  const auto* x = static_cast<const std::uint8_t*>(inputs[0].data);
  const QParams& qparams = op.inputs[0].qparams;
  for_each_element(planes, [&](std::int64_t nchw, std::int64_t nhwc) {
    y[nchw] = static_cast<float>(x[nhwc] - qparams.zero_point) * qparams.scale;
  });
}

}  // namespace pyquant::reference
