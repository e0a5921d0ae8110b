#include <cmath>

#include "quant/requantize.h"
#include "runtime/ops/op_definition.h"

namespace pyquant {
namespace {

void check_mul(const Operator& op) {
  const auto& mul = std::get<Mul>(op.attributes);
  check_uint8_activation(op, op.inputs[0], "the first input");
  check_uint8_activation(op, op.inputs[1], "the second input");
  check_uint8_activation(op, op.output, "the output");
  check_output_bounds(op, mul.output_min, mul.output_max);
  const float multiplier = requantize_multiplier(
      op.inputs[0].qparams.scale, op.inputs[1].qparams.scale, op.output.qparams.scale);
  if (!std::isfinite(multiplier)) {
    reject_operator(op, "the product of the inputs' scales over the output's is not finite");
  }
}

Shape mul_shape(const Operator& op, std::span<const Shape> inputs) {
  return broadcast_shape(op, inputs);
}

}  // namespace

const OpDefinition kMulDefinition = {"Mul", 2, check_mul, mul_shape, never_view};

}  // namespace pyquant
