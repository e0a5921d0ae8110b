#include "engines/qnnpack/bound_operator.h"
#include "engines/qnnpack/kernels.h"
#include "engines/qnnpack/linear.h"
#include "engines/qnnpack/weights.h"

namespace pyquant::qnnpack_engine {
namespace {

class PreparedConv2d final : public PreparedKernel {
 public:
  PreparedConv2d(const Operator& op, const Conv2d& conv)
      : name_(op.name),
        conv_(conv),
        group_in_(op.inputs[1].constant.shape[3]),
        group_out_(op.inputs[1].constant.shape[0] / conv.groups),
        input_zero_point_(static_cast<std::uint8_t>(op.inputs[0].qparams.zero_point)),
        output_zero_point_(static_cast<std::uint8_t>(op.output.qparams.zero_point)),
        weights_(op) {}

  std::unique_ptr<BoundKernel> bind(std::span<const StridedShape> inputs,
                                    const StridedShape& /*output*/,
                                    int /*threads*/) const override {
    const Shape& input = inputs[0];
    const Border border = border_of(conv_.window);
    const bool pads_alike = is_symmetric(border);
    std::optional<StagedInput> staged;
    if (!pads_alike || group_in_ < static_cast<std::int64_t>(kReadAtOnce)) {
      staged.emplace(input, pads_alike ? Border{} : border, input_zero_point_);
    }
    const auto batch = static_cast<std::size_t>(input[0]);
    const auto height = static_cast<std::size_t>(staged ? staged->height() : input[1]);
    const auto width = static_cast<std::size_t>(staged ? staged->width() : input[2]);
    const auto in_channels = static_cast<std::size_t>(group_in_ * conv_.groups);
    const auto out_channels = static_cast<std::size_t>(group_out_ * conv_.groups);
    return std::make_unique<BoundOperator>(
        name_, create(pads_alike),
        [=](pytorch_qnnp_operator_t op, const std::uint8_t* a, const std::uint8_t* /*b*/,
            std::uint8_t* output) {
          return pytorch_qnnp_setup_convolution2d_nhwc_q8(op, batch, height, width, a, in_channels,
                                                          output, out_channels,
                                                          /*threadpool=*/nullptr);
        },
        staged);
  }

 private:
  OperatorHandle create(bool pads) const {
    const Window& window = conv_.window;
    const auto u32 = [](std::int32_t value) { return static_cast<std::uint32_t>(value); };
    pytorch_qnnp_operator_t op = nullptr;
    check(pytorch_qnnp_create_convolution2d_nhwc_q8(
              pads ? u32(window.pad_top) : 0, pads ? u32(window.pad_left) : 0, u32(window.kernel_h),
              u32(window.kernel_w), u32(window.stride_h), u32(window.stride_w),
              u32(window.dilation_h), u32(window.dilation_w), u32(conv_.groups),
              static_cast<std::size_t>(group_in_), static_cast<std::size_t>(group_out_),
              input_zero_point_, weights_.zero_points.data(), weights_.kernel.data(),
              weights_.bias.data(), output_zero_point_, conv_.output_min, conv_.output_max,
              /*flags=*/0, weights_.requantization_scales.data(),
              /*per_channel=*/true, &op),
          name_);
    return OperatorHandle(op);
  }

  std::string name_;
  Conv2d conv_;
  std::int64_t group_in_, group_out_;
  std::uint8_t input_zero_point_, output_zero_point_;
  Weights weights_;
};

}  // namespace

std::string why_unsupported(const Operator& op, const Conv2d& /*conv*/) {
  return why_not_requantizable(op);
}

std::unique_ptr<PreparedKernel> prepare(const Operator& op, const Conv2d& conv) {
  if (conv.window == Window{} && conv.groups == 1) {
    return prepare_linear(op, conv.output_min, conv.output_max);
  }
  return std::make_unique<PreparedConv2d>(op, conv);
}

}  // namespace pyquant::qnnpack_engine
