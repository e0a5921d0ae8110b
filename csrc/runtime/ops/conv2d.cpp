#include "runtime/ops/op_definition.h"

namespace pyquant {
namespace {

void check_conv2d(const Operator& op) {
  const auto& conv = std::get<Conv2d>(op.attributes);
  check_uint8_activation(op, op.inputs[0], "the input");
  check_activation(op, op.output, "the output");
  check_output_bounds(op, conv.output_min, conv.output_max);
  check_window(op, conv.window);
  check_weight_and_bias(op, 4);
  const Shape& weight = op.inputs[1].constant.shape;
  if (weight[1] != conv.window.kernel_h || weight[2] != conv.window.kernel_w) {
    reject_operator(op, "the weight " + weight.to_string() + " does not fit the kernel size");
  }
  if (conv.groups < 1 || weight[0] % conv.groups != 0) {
    reject_operator(op, std::to_string(conv.groups) + " groups do not divide " +
                            std::to_string(weight[0]) + " output channels");
  }
}

Shape conv2d_shape(const Operator& op, std::span<const Shape> inputs) {
  const auto& conv = std::get<Conv2d>(op.attributes);
  require_rank(op, inputs[0], 4);
  if (inputs[0][3] != inputs[1][3] * conv.groups) {
    reject_shapes(op, "takes " + std::to_string(inputs[1][3] * conv.groups) +
                          " input channels, not " + std::to_string(inputs[0][3]));
  }
  return window_output(op, inputs[0], conv.window, /*ceil_mode=*/false, inputs[1][0]);
}

}  // namespace

const OpDefinition kConv2dDefinition = {"Conv2d", 3, check_conv2d, conv2d_shape, never_view};

}  // namespace pyquant
