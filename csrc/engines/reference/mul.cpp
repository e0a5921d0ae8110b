#include "engines/reference/broadcast.h"
#include "engines/reference/reference_engine.h"
#include "quant/requantize.h"

namespace pyquant::reference {
void run_mul(const Operator& op, std::span<const ConstTensorView> inputs,
             const TensorView& output) {
  const auto& mul = std::get<Mul>(op.attributes);
  auto* y = static_cast<std::uint8_t*>(output.data);
  const QParams& qparams = op.output.qparams;
  const float multiplier =
      requantize_multiplier(op.inputs[0].qparams.scale, op.inputs[1].qparams.scale, qparams.scale);
  const auto centered = [&](std::size_t input, std::int64_t index) {
    const std::int64_t at = broadcast_index(index, output.shape, inputs[input].shape);
    return static_cast<const std::uint8_t*>(inputs[input].data)[at] -
           op.inputs[input].qparams.zero_point;
  };
  const std::int64_t count = output.shape.elements();
  for (std::int64_t i = 0; i < count; ++i) {
    y[i] = requantize(centered(0, i) * centered(1, i), multiplier, qparams.zero_point,
                      mul.output_min, mul.output_max);
  }
}

}  // namespace pyquant::reference
