#include <algorithm>

#include "engines/qnnpack/bound_operator.h"
#include "engines/qnnpack/kernels.h"

namespace pyquant::qnnpack_engine {
namespace {

class PreparedAdd final : public PreparedKernel {
 public:
  PreparedAdd(const Operator& op, const Add& add)
      : name_(op.name),
        add_(add),
        a_(op.inputs[0].qparams),
        b_(op.inputs[1].qparams),
        sum_(op.output.qparams) {}

  std::unique_ptr<BoundKernel> bind(std::span<const StridedShape> /*inputs*/,
                                    const StridedShape& output, int /*threads*/) const override {
    const auto zero_point = [](const QParams& qparams) {
      return static_cast<std::uint8_t>(qparams.zero_point);
    };
    pytorch_qnnp_operator_t op = nullptr;
    check(pytorch_qnnp_create_add_nc_q8(/*channels=*/1, zero_point(a_), a_.scale, zero_point(b_),
                                        b_.scale, zero_point(sum_), sum_.scale, add_.output_min,
                                        add_.output_max, /*flags=*/0, &op),
          name_);
    const auto elements = static_cast<std::size_t>(output.elements());
    return std::make_unique<BoundOperator>(
        name_, OperatorHandle(op),
        [elements](pytorch_qnnp_operator_t handle, const std::uint8_t* a, const std::uint8_t* b,
                   std::uint8_t* sum) {
          return pytorch_qnnp_setup_add_nc_q8(handle, elements, a, 1, b, 1, sum, 1);
        });
  }

 private:
  std::string name_;
  Add add_;
  QParams a_, b_, sum_;
};

}  // namespace

std::string why_unsupported(const Operator& op, const Add& add) {
  if (op.inputs[0].dtype != DType::kUInt8 || op.inputs[1].dtype != DType::kUInt8) {
    return "QNNPACK adds uint8 operands only";
  }
  if (op.inputs[0].constant.data != nullptr || op.inputs[1].constant.data != nullptr) {
    return "QNNPACK adds activations only";
  }
  if (add.broadcast) {
    return "QNNPACK adds operands of one shape only";
  }
  if (add.output_min >= add.output_max) {
    return "QNNPACK needs output_min below output_max";
  }
  const float a = op.inputs[0].qparams.scale / op.output.qparams.scale;
  const float b = op.inputs[1].qparams.scale / op.output.qparams.scale;
  // The last condition is QNNPACK's, too, but only asserted: its shift must be below 32.
  if (std::min(a, b) < 0x1p-14F || !(std::max(a, b) < 0x1p8F) || std::max(a, b) < 0x1p-10F) {
    return "QNNPACK adds with s_a / s_y and s_b / s_y from 2^-14 to 2^8, one at least 2^-10";
  }
  return {};
}

std::unique_ptr<PreparedKernel> prepare(const Operator& op, const Add& add) {
  return std::make_unique<PreparedAdd>(op, add);
}

}  // namespace pyquant::qnnpack_engine
