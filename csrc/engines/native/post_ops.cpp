#include "engines/native/post_ops.h"

#include "kernels/kernel_table.h"

namespace pyquant::native {
namespace {

// No sum of the scaled operands leaves int32, so that only the last pack has to saturate.
bool sum_fits_int32(const ResidualAdd& add) {
  constexpr float kLimit = 1 << 30;
  return 255.0F * add.own.multiplier < kLimit && 255.0F * add.other.multiplier < kLimit;
}

}  // namespace

AddOperand add_operand(const Operator& add, std::size_t input) {
  const QParams& qparams = add.inputs[input].qparams;
  return {qparams.scale / add.output.qparams.scale, qparams.zero_point};
}

ResidualAdd residual_add(const PostOp& post_op) {
  const Operator& op = *post_op.op;
  const auto& attributes = std::get<Add>(op.attributes);
  return {add_operand(op, post_op.input),
          add_operand(op, 1 - post_op.input),
          {op.output.qparams.zero_point, attributes.output_min, attributes.output_max},
          0};
}

bool takes_output_strides(const OutputStage& output) {
  return output.post_op != OutputStage::PostOp::kAdd;
}

void find_residual(const RunArgs& args, OutputStage& output) {
  if (output.post_op == OutputStage::PostOp::kAdd) {
    // Through integers, because they are parts of different objects.
    output.add.distance =
        static_cast<std::ptrdiff_t>(reinterpret_cast<std::uintptr_t>(args.inputs[kResidualInput]) -
                                    reinterpret_cast<std::uintptr_t>(args.output));
  }
}

bool fuses(const Operator& op, std::span<const PostOp> post_ops) {
  const bool multiplies = std::holds_alternative<Conv2d>(op.attributes) ||
                          std::holds_alternative<Linear>(op.attributes);
  if (!multiplies || op.output.dtype != DType::kUInt8 || post_ops.size() != 1) {
    return false;
  }
  const Operator& post_op = *post_ops[0].op;
  if (std::holds_alternative<LookupTable>(post_op.attributes)) {
    return kernel_table().looks_up_tables;
  }
  const auto* add = std::get_if<Add>(&post_op.attributes);
  return add != nullptr && !add->broadcast && post_op.inputs[0].dtype == DType::kUInt8 &&
         post_op.inputs[1].dtype == DType::kUInt8 && kernel_table().adds_residuals &&
         sum_fits_int32(residual_add(post_ops[0]));
}

}  // namespace pyquant::native
