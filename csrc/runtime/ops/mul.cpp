#include <algorithm>
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
  const Shape& a = inputs[0];
  const Shape& b = inputs[1];
  const auto fit = [](std::int64_t one, std::int64_t other) {
    return one == other || one == 1 || other == 1;
  };
  if (a.rank() != b.rank() || !std::equal(a.begin(), a.end(), b.begin(), fit)) {
    reject_shapes(op, "the inputs have shapes " + a.to_string() + " and " + b.to_string() +
                          ", which do not broadcast");
  }
  Shape output = a;
  for (std::size_t axis = 0; axis < a.rank(); ++axis) {
    output[axis] = std::max(a[axis], b[axis]);
  }
  return output;
}

}  // namespace

const OpDefinition kMulDefinition = {"Mul", 2, check_mul, mul_shape, never_view};

}  // namespace pyquant
