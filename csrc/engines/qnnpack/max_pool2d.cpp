#include <algorithm>

#include "engines/qnnpack/bound_operator.h"
#include "engines/qnnpack/kernels.h"

namespace pyquant::qnnpack_engine {
namespace {

class PreparedMaxPool2d final : public PreparedKernel {
 public:
  PreparedMaxPool2d(const Operator& op, const MaxPool2d& pool)
      : name_(op.name), window_(pool.window) {}

  std::unique_ptr<BoundKernel> bind(std::span<const StridedShape> inputs,
                                    const StridedShape& output, int /*threads*/) const override {
    const Shape& input = inputs[0];
    // What the windows reach, which with ceil_mode is more than the padding and without may be
    // less.
    const Border border = {
        window_.pad_top, window_.pad_left,
        std::max<std::int64_t>(0, reach(output[1], window_.stride_h, window_.dilation_h,
                                        window_.kernel_h, window_.pad_top) -
                                      input[1]),
        std::max<std::int64_t>(0, reach(output[2], window_.stride_w, window_.dilation_w,
                                        window_.kernel_w, window_.pad_left) -
                                      input[2])};
    // The smallest value never wins. QNNPACK's own padding repeats the pixels at the edge, which
    // with a dilation may not be in the window.
    std::optional<StagedInput> staged;
    if (border != Border{}) {
      staged.emplace(input, border, std::uint8_t{0});
    }
    const auto u32 = [](std::int32_t value) { return static_cast<std::uint32_t>(value); };
    const auto channels = static_cast<std::size_t>(input[3]);
    pytorch_qnnp_operator_t op = nullptr;
    check(pytorch_qnnp_create_max_pooling2d_nhwc_u8(
              /*input_padding_height=*/0, /*input_padding_width=*/0, u32(window_.kernel_h),
              u32(window_.kernel_w), u32(window_.stride_h), u32(window_.stride_w),
              u32(window_.dilation_h), u32(window_.dilation_w), channels, /*output_min=*/0,
              /*output_max=*/255, /*flags=*/0, &op),
          name_);
    const auto batch = static_cast<std::size_t>(input[0]);
    const auto height = static_cast<std::size_t>(staged ? staged->height() : input[1]);
    const auto width = static_cast<std::size_t>(staged ? staged->width() : input[2]);
    return std::make_unique<BoundOperator>(
        name_, OperatorHandle(op),
        [=](pytorch_qnnp_operator_t handle, const std::uint8_t* a, const std::uint8_t* /*b*/,
            std::uint8_t* y) {
          return pytorch_qnnp_setup_max_pooling2d_nhwc_u8(handle, batch, height, width, a, channels,
                                                          y, channels, /*threadpool=*/nullptr);
        },
        staged);
  }

 private:
  // Pixels from the image's first to the last that a window covers.
  static std::int64_t reach(std::int64_t outputs, std::int32_t stride, std::int32_t dilation,
                            std::int32_t kernel, std::int32_t pad) {
    return (outputs - 1) * stride + (kernel - 1) * dilation + 1 - pad;
  }

  std::string name_;
  Window window_;
};

}  // namespace

std::string why_unsupported(const Operator& /*op*/, const MaxPool2d& pool) {
  if (pool.window.kernel_h * pool.window.kernel_w == 1) {
    return "QNNPACK has no pooling over one pixel";
  }
  return {};
}

std::unique_ptr<PreparedKernel> prepare(const Operator& op, const MaxPool2d& pool) {
  return std::make_unique<PreparedMaxPool2d>(op, pool);
}

}  // namespace pyquant::qnnpack_engine
