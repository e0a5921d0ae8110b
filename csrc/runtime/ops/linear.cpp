#include "runtime/ops/op_definition.h"

namespace pyquant {
namespace {

void check_linear(const Operator& op) {
  const auto& linear = std::get<Linear>(op.attributes);
  check_uint8_activation(op, op.inputs[0], "the input");
  check_activation(op, op.output, "the output");
  check_output_bounds(op, linear.output_min, linear.output_max);
  check_weight_and_bias(op, 2);
}

Shape linear_shape(const Operator& op, std::span<const Shape> inputs) {
  Shape output = inputs[0];
  const std::size_t last = output.rank() - 1;
  // Features are the last axis; a rank-4 activation is NHWC here but NCHW in the model, so a
  // linear layer over its last axis would mix the wrong elements.
  if (output.rank() < 2 || output.rank() == 4 || output[last] != inputs[1][1]) {
    reject_shapes(op,
                  "takes [N, " + std::to_string(inputs[1][1]) + "], not " + inputs[0].to_string());
  }
  output[last] = inputs[1][0];
  return output;
}

}  // namespace

const OpDefinition kLinearDefinition = {"Linear", 3, check_linear, linear_shape, never_view};

}  // namespace pyquant
