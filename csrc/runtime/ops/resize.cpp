#include <cmath>

#include "runtime/ops/op_definition.h"

namespace pyquant {
namespace {

constexpr std::int32_t kMaxOutput = 1 << 16;
constexpr double kMaxScale = 1 << 16;

// Along one axis: a size or a scale, or both.
void check_axis(const Operator& op, std::int32_t output, double scale) {
  if (output < 0 || output > kMaxOutput) {
    reject_operator(op, "the output size " + std::to_string(output) + " is out of range");
  }
  const bool usable = scale >= 1 / kMaxScale && scale <= kMaxScale;  // NaN is not
  if (!usable && (scale != 0 || output == 0)) {
    reject_operator(op, "the scale factor " + std::to_string(scale) + " is out of range");
  }
}

template <typename Resize>
void check_resize(const Operator& op) {
  const auto& resize = std::get<Resize>(op.attributes);
  check_uint8_activation(op, op.inputs[0], "the input");
  check_uint8_activation(op, op.output, "the output");
  check_axis(op, resize.output_h, resize.scale_h);
  check_axis(op, resize.output_w, resize.scale_w);
}

void check_resize_nearest(const Operator& op) {
  check_resize<ResizeNearest>(op);
  check_same_qparams(op);
}

std::int64_t output_size(std::int64_t size, std::int32_t output, double scale) {
  return output != 0 ? output
                     : static_cast<std::int64_t>(std::floor(static_cast<double>(size) * scale));
}

template <typename Resize>
Shape resize_shape(const Operator& op, std::span<const Shape> inputs) {
  const auto& resize = std::get<Resize>(op.attributes);
  const Shape& x = inputs[0];
  require_rank(op, x, 4);
  return {x[0], output_size(x[1], resize.output_h, resize.scale_h),
          output_size(x[2], resize.output_w, resize.scale_w), x[3]};
}

}  // namespace

const OpDefinition kResizeNearestDefinition = {"ResizeNearest", 1, check_resize_nearest,
                                               resize_shape<ResizeNearest>, never_view};
const OpDefinition kResizeBilinearDefinition = {"ResizeBilinear", 1, check_resize<ResizeBilinear>,
                                                resize_shape<ResizeBilinear>, never_view};

}  // namespace pyquant
