#include "runtime/ops/op_definition.h"

namespace pyquant {
namespace {

void check_conv2d(const Operator& op) {
  const auto& conv = std::get<Conv2d>(op.attributes);
  check_output_bounds(op, conv.output_min, conv.output_max);
  check_convolution(op, conv.window, conv.groups);
}

Shape conv2d_shape(const Operator& op, std::span<const Shape> inputs) {
  const auto& conv = std::get<Conv2d>(op.attributes);
  require_channels(op, inputs, conv.groups);
  return window_output(op, inputs[0], conv.window, /*ceil_mode=*/false, inputs[1][0]);
}

}  // namespace

const OpDefinition kConv2dDefinition = {"Conv2d", 3, check_conv2d, conv2d_shape, never_view};

}  // namespace pyquant
