#include "engines/qnnpack/bound_operator.h"
#include "engines/qnnpack/kernels.h"

namespace pyquant::qnnpack_engine {
namespace {

std::string why_not_averageable(const Operator& op) {
  const float ratio = op.inputs[0].qparams.scale / op.output.qparams.scale;
  if (!(ratio >= 0x1p-8F && ratio < 0x1p8F)) {
    return "QNNPACK averages with s_x / s_y from 2^-8 to 2^8";
  }
  return {};
}

std::uint8_t zero_point(const Operand& operand) {
  return static_cast<std::uint8_t>(operand.qparams.zero_point);
}

class PreparedAvgPool2d final : public PreparedKernel {
 public:
  PreparedAvgPool2d(const Operator& op, const AvgPool2d& pool)
      : name_(op.name), window_(pool.window), input_(op.inputs[0]), output_(op.output) {}

  std::unique_ptr<BoundKernel> bind(std::span<const StridedShape> inputs,
                                    const StridedShape& /*output*/,
                                    int /*threads*/) const override {
    const Shape& input = inputs[0];
    const Border border = border_of(window_);
    const bool pads_alike = is_symmetric(border);
    std::optional<StagedInput> staged;
    if (!pads_alike) {
      staged.emplace(input, border, zero_point(input_));
    }
    const auto u32 = [](std::int32_t value) { return static_cast<std::uint32_t>(value); };
    const auto channels = static_cast<std::size_t>(input[3]);
    pytorch_qnnp_operator_t op = nullptr;
    check(pytorch_qnnp_create_average_pooling2d_nhwc_q8(
              pads_alike ? u32(window_.pad_top) : 0, pads_alike ? u32(window_.pad_left) : 0,
              u32(window_.kernel_h), u32(window_.kernel_w), u32(window_.stride_h),
              u32(window_.stride_w), channels, zero_point(input_), input_.qparams.scale,
              zero_point(output_), output_.qparams.scale, /*output_min=*/0, /*output_max=*/255,
              /*flags=*/0, &op),
          name_);
    const auto batch = static_cast<std::size_t>(input[0]);
    const auto height = static_cast<std::size_t>(staged ? staged->height() : input[1]);
    const auto width = static_cast<std::size_t>(staged ? staged->width() : input[2]);
    return std::make_unique<BoundOperator>(
        name_, OperatorHandle(op),
        [=](pytorch_qnnp_operator_t handle, const std::uint8_t* a, const std::uint8_t* /*b*/,
            std::uint8_t* y) {
          return pytorch_qnnp_setup_average_pooling2d_nhwc_q8(handle, batch, height, width, a,
                                                              channels, y, channels,
                                                              /*threadpool=*/nullptr);
        },
        staged);
  }

 private:
  std::string name_;
  Window window_;
  Operand input_, output_;
};

class PreparedGlobalAvgPool final : public PreparedKernel {
 public:
  explicit PreparedGlobalAvgPool(const Operator& op)
      : name_(op.name), input_(op.inputs[0]), output_(op.output) {}

  std::unique_ptr<BoundKernel> bind(std::span<const StridedShape> inputs,
                                    const StridedShape& /*output*/,
                                    int /*threads*/) const override {
    const Shape& input = inputs[0];
    const auto channels = static_cast<std::size_t>(input[3]);
    pytorch_qnnp_operator_t op = nullptr;
    check(pytorch_qnnp_create_global_average_pooling_nwc_q8(
              channels, zero_point(input_), input_.qparams.scale, zero_point(output_),
              output_.qparams.scale, /*output_min=*/0, /*output_max=*/255, /*flags=*/0, &op),
          name_);
    const auto batch = static_cast<std::size_t>(input[0]);
    const auto pixels = static_cast<std::size_t>(input[1] * input[2]);
    return std::make_unique<BoundOperator>(
        name_, OperatorHandle(op),
        [=](pytorch_qnnp_operator_t handle, const std::uint8_t* a, const std::uint8_t* /*b*/,
            std::uint8_t* y) {
          return pytorch_qnnp_setup_global_average_pooling_nwc_q8(handle, batch, pixels, a,
                                                                  channels, y, channels);
        });
  }

 private:
  std::string name_;
  Operand input_, output_;
};

}  // namespace

std::string why_unsupported(const Operator& op, const AvgPool2d& pool) {
  const std::int32_t area = pool.window.kernel_h * pool.window.kernel_w;
  if (area == 1) {
    return "QNNPACK has no pooling over one pixel";
  }
  const bool pads = border_of(pool.window) != Border{};
  if (pool.ceil_mode || (pads && !pool.count_include_pad && pool.divisor_override <= 0) ||
      (pool.divisor_override > 0 && pool.divisor_override != area)) {
    return "QNNPACK divides by the window's area only";
  }
  return why_not_averageable(op);
}

std::string why_unsupported(const Operator& op, const AdaptiveAvgPool2d& pool) {
  if (pool.output_h != 1 || pool.output_w != 1) {
    return "QNNPACK pools adaptively to one pixel only";
  }
  return why_not_averageable(op);
}

std::unique_ptr<PreparedKernel> prepare(const Operator& op, const AvgPool2d& pool) {
  return std::make_unique<PreparedAvgPool2d>(op, pool);
}

std::unique_ptr<PreparedKernel> prepare(const Operator& op, const AdaptiveAvgPool2d& /*pool*/) {
  return std::make_unique<PreparedGlobalAvgPool>(op);
}

}  // namespace pyquant::qnnpack_engine
