#include "runtime/ops/op_definition.h"

namespace pyquant {
namespace {

constexpr std::size_t kMaxInputs = 64;

void check_concat(const Operator& op) {
  for (const Operand& input : op.inputs) {
    check_uint8_activation(op, input, "an input");
  }
  check_uint8_activation(op, op.output, "the output");
  check_same_qparams(op);
}

Shape concat_shape(const Operator& op, std::span<const Shape> inputs) {
  const auto& concat = std::get<Concat>(op.attributes);
  require_axis(op, inputs[0], concat.axis);
  const auto axis = static_cast<std::size_t>(concat.axis);
  Shape y = inputs[0];
  if (concat.interleaved && axis != y.rank() - 1) {
    reject_shapes(op, "interleaves the innermost axis only, not axis " +
                          std::to_string(concat.axis) + " of " + y.to_string());
  }
  for (const Shape& x : inputs.subspan(1)) {
    Shape like = inputs[0];
    if (!concat.interleaved && x.rank() == like.rank()) {
      like[axis] = x[axis];
    }
    if (!(x == like)) {
      reject_shapes(op, "an input of shape " + x.to_string() + " does not fit one of " +
                            inputs[0].to_string());
    }
    y[axis] += x[axis];
  }
  return y;
}

}  // namespace

const OpDefinition kConcatDefinition = {
    "Concat", {2, kMaxInputs}, check_concat, concat_shape, never_view};

}  // namespace pyquant
