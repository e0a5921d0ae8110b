#include "engines/reference/reference_engine.h"
#include "quant/requantize.h"

namespace pyquant::reference {
namespace {

// The element of a broadcast operand that belongs to element `index` of the output.
std::int64_t broadcast_index(std::int64_t index, const Shape& output, const Shape& operand) {
  std::int64_t result = 0;
  std::int64_t stride = 1;
  for (std::size_t axis = output.rank(); axis-- > 0;) {
    const std::int64_t position = index % output[axis];
    index /= output[axis];
    result += operand[axis] == 1 ? 0 : position * stride;
    stride *= operand[axis];
  }
  return result;
}

}  // namespace

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
