#include "runtime/ops/op_definition.h"

namespace pyquant {
namespace {

void check_conv_transpose2d(const Operator& op) {
  const auto& conv = std::get<ConvTranspose2d>(op.attributes);
  const Window& window = conv.window;
  check_output_bounds(op, conv.output_min, conv.output_max);
  check_convolution(op, window, conv.groups);
  if (conv.output_pad_h < 0 || conv.output_pad_w < 0 ||
      conv.output_pad_h >= std::max(window.stride_h, window.dilation_h) ||
      conv.output_pad_w >= std::max(window.stride_w, window.dilation_w)) {
    reject_operator(op, "output padding must be below the stride or the dilation");
  }
}

// Positions along one axis; not positive if the padding takes all.
std::int64_t positions(std::int64_t size, std::int32_t kernel, std::int32_t stride,
                       std::int32_t padding, std::int32_t dilation, std::int32_t output_pad) {
  return (size - 1) * stride - padding + std::int64_t{dilation} * (kernel - 1) + output_pad + 1;
}

Shape conv_transpose2d_shape(const Operator& op, std::span<const Shape> inputs) {
  const auto& conv = std::get<ConvTranspose2d>(op.attributes);
  const Window& window = conv.window;
  const Shape& x = inputs[0];
  require_channels(op, inputs, conv.groups);
  return {x[0],
          positions(x[1], window.kernel_h, window.stride_h, window.pad_top + window.pad_bottom,
                    window.dilation_h, conv.output_pad_h),
          positions(x[2], window.kernel_w, window.stride_w, window.pad_left + window.pad_right,
                    window.dilation_w, conv.output_pad_w),
          inputs[1][0]};
}

}  // namespace

const OpDefinition kConvTranspose2dDefinition = {"ConvTranspose2d", 3, check_conv_transpose2d,
                                                 conv_transpose2d_shape, never_view};

}  // namespace pyquant
