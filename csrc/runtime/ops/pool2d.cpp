#include "runtime/ops/op_definition.h"

namespace pyquant {
namespace {

void check_pool_window(const Operator& op, const Window& window) {
  check_window(op, window);
  const std::int32_t extent_h = window.dilation_h * (window.kernel_h - 1) + 1;
  const std::int32_t extent_w = window.dilation_w * (window.kernel_w - 1) + 1;
  if (window.pad_top >= extent_h || window.pad_bottom >= extent_h || window.pad_left >= extent_w ||
      window.pad_right >= extent_w) {
    reject_operator(op, "a window can lie wholly in the padding");
  }
}

// So that the sum over an image fits an int32.
constexpr std::int64_t kMaxPixels = 1 << 23;

void require_summable(const Operator& op, const Shape& x) {
  require_rank(op, x, 4);
  if (x[1] * x[2] > kMaxPixels) {
    reject_shapes(op, "an image of " + x.to_string() + " is too large to average");
  }
}

void check_max_pool2d(const Operator& op) {
  check_uint8_activation(op, op.inputs[0], "the input");
  check_uint8_activation(op, op.output, "the output");
  check_same_qparams(op);
  check_pool_window(op, std::get<MaxPool2d>(op.attributes).window);
}

Shape max_pool2d_shape(const Operator& op, std::span<const Shape> inputs) {
  const auto& pool = std::get<MaxPool2d>(op.attributes);
  require_rank(op, inputs[0], 4);
  return window_output(op, inputs[0], pool.window, pool.ceil_mode, inputs[0][3]);
}

void check_avg_pool2d(const Operator& op) {
  const auto& pool = std::get<AvgPool2d>(op.attributes);
  check_uint8_activation(op, op.inputs[0], "the input");
  check_uint8_activation(op, op.output, "the output");
  check_pool_window(op, pool.window);
  if (pool.window.dilation_h != 1 || pool.window.dilation_w != 1 || pool.divisor_override < 0) {
    reject_operator(op, "dilation must be 1 and divisor_override not negative");
  }
}

Shape avg_pool2d_shape(const Operator& op, std::span<const Shape> inputs) {
  const auto& pool = std::get<AvgPool2d>(op.attributes);
  require_summable(op, inputs[0]);
  return window_output(op, inputs[0], pool.window, pool.ceil_mode, inputs[0][3]);
}

template <typename Pool>
void check_adaptive_pool2d(const Operator& op) {
  const auto& pool = std::get<Pool>(op.attributes);
  check_uint8_activation(op, op.inputs[0], "the input");
  check_uint8_activation(op, op.output, "the output");
  if (pool.output_h < 1 || pool.output_w < 1) {
    reject_operator(op, "the output size must be positive");
  }
}

template <typename Pool>
Shape adaptive_pool2d_shape(const Operator& op, std::span<const Shape> inputs) {
  const auto& pool = std::get<Pool>(op.attributes);
  require_rank(op, inputs[0], 4);
  return {inputs[0][0], pool.output_h, pool.output_w, inputs[0][3]};
}

Shape adaptive_avg_pool2d_shape(const Operator& op, std::span<const Shape> inputs) {
  require_summable(op, inputs[0]);
  return adaptive_pool2d_shape<AdaptiveAvgPool2d>(op, inputs);
}

void check_adaptive_max_pool2d(const Operator& op) {
  check_adaptive_pool2d<AdaptiveMaxPool2d>(op);
  check_same_qparams(op);
}

}  // namespace

const OpDefinition kMaxPool2dDefinition = {"MaxPool2d", 1, check_max_pool2d, max_pool2d_shape,
                                           never_view};
const OpDefinition kAvgPool2dDefinition = {"AvgPool2d", 1, check_avg_pool2d, avg_pool2d_shape,
                                           never_view};
const OpDefinition kAdaptiveAvgPool2dDefinition = {"AdaptiveAvgPool2d", 1,
                                                   check_adaptive_pool2d<AdaptiveAvgPool2d>,
                                                   adaptive_avg_pool2d_shape, never_view};
const OpDefinition kAdaptiveMaxPool2dDefinition = {
    "AdaptiveMaxPool2d", 1, check_adaptive_max_pool2d, adaptive_pool2d_shape<AdaptiveMaxPool2d>,
    never_view};

}  // namespace pyquant
