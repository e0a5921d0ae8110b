#include "runtime/ops/op_definition.h"

namespace pyquant {
namespace {

void check_flatten(const Operator& op) {
  check_uint8_activation(op, op.inputs[0], "the input");
  check_uint8_activation(op, op.output, "the output");
  check_same_qparams(op);
}

Shape flatten_shape(const Operator& op, std::span<const Shape> inputs) {
  const Shape& x = inputs[0];
  if (x.rank() < 2) {
    reject_shapes(op, "takes at least two dimensions, not " + x.to_string());
  }
  return {x[0], x.elements() / x[0]};
}

// NHWC order and NCHW order are the same where there is one pixel or one channel.
bool flatten_is_view(std::span<const Shape> inputs) {
  const Shape& x = inputs[0];
  return x.rank() != 4 || x[3] == 1 || x[1] * x[2] == 1;
}

}  // namespace

const OpDefinition kFlattenDefinition = {"Flatten", 1, check_flatten, flatten_shape,
                                         flatten_is_view};

}  // namespace pyquant
