#include "runtime/ops/op_definition.h"

namespace pyquant {
namespace {

void check_quantize(const Operator& op) {
  if (op.inputs[0].dtype != DType::kFloat32 || op.inputs[0].constant.data != nullptr) {
    reject_operator(op, "takes a float32 activation");
  }
  check_uint8_activation(op, op.output, "the output");
}

Shape quantize_shape(const Operator& /*op*/, std::span<const Shape> inputs) {
  const Shape& x = inputs[0];
  return x.rank() == 4 ? Shape{x[0], x[2], x[3], x[1]} : x;
}

void check_dequantize(const Operator& op) {
  check_activation(op, op.inputs[0], "the input");
  if (op.output.dtype != DType::kFloat32) {
    reject_operator(op, "gives a float32 activation");
  }
}

Shape dequantize_shape(const Operator& /*op*/, std::span<const Shape> inputs) {
  const Shape& x = inputs[0];
  return x.rank() == 4 ? Shape{x[0], x[3], x[1], x[2]} : x;
}

}  // namespace

const OpDefinition kQuantizeDefinition = {"Quantize", 1, check_quantize, quantize_shape,
                                          never_view};
const OpDefinition kDequantizeDefinition = {"Dequantize", 1, check_dequantize, dequantize_shape,
                                            never_view};

}  // namespace pyquant
