#include "runtime/ops/op_definition.h"

namespace pyquant {
namespace {

void check_add(const Operator& op) {
  const auto& add = std::get<Add>(op.attributes);
  const auto check_input = add.broadcast ? check_uint8_activation : check_activation;
  check_input(op, op.inputs[0], "the first input");
  check_input(op, op.inputs[1], "the second input");
  check_uint8_activation(op, op.output, "the output");
  check_output_bounds(op, add.output_min, add.output_max);
}

Shape add_shape(const Operator& op, std::span<const Shape> inputs) {
  if (std::get<Add>(op.attributes).broadcast) {
    return broadcast_shape(op, inputs);
  }
  if (!(inputs[0] == inputs[1])) {
    reject_shapes(
        op, "the inputs have shapes " + inputs[0].to_string() + " and " + inputs[1].to_string());
  }
  return inputs[0];
}

}  // namespace

const OpDefinition kAddDefinition = {"Add", 2, check_add, add_shape, never_view};

}  // namespace pyquant
