#include "engines/reference/reference_engine.h"

#include <array>

#include "engines/owned_operator.h"

namespace pyquant {
namespace reference {
namespace {

// In the order of OpAttributes.
constexpr std::array<Function, std::variant_size_v<OpAttributes>> kFunctions = {
    run_quantize,
    run_dequantize,
    run_conv2d,
    run_linear,
    run_add,
    run_max_pool2d,
    run_avg_pool2d,
    run_adaptive_avg_pool2d,
    run_flatten,
    run_pad,
    run_table,
    run_mul,
    run_concat,
    run_slice,
    run_channel_shuffle,
    run_resize_nearest,
    run_resize_bilinear,
    run_conv_transpose2d,
    run_reshape,
    run_adaptive_max_pool2d,
};

class BoundReference final : public BoundKernel {
 public:
  BoundReference(const Operator& op, std::span<const StridedShape> inputs,
                 const StridedShape& output)
      : op_(op), output_{op.output.dtype, output.shape(), nullptr} {
    std::size_t activation = 0;
    for (const Operand& input : op.inputs) {
      if (input.constant.data == nullptr) {
        inputs_.emplace_back(input.dtype, inputs[activation++], nullptr);
      }
    }
  }

  void run(const RunArgs& args) override {
    for (std::size_t i = 0; i < inputs_.size(); ++i) {
      inputs_[i].data = args.inputs[i];
    }
    output_.data = args.output;
    kFunctions[op_.attributes.index()](op_, inputs_, output_);
  }

 private:
  const Operator& op_;
  std::vector<ConstTensorView> inputs_;
  TensorView output_;
};

class PreparedReference final : public PreparedKernel {
 public:
  explicit PreparedReference(const Operator& op) : op_(op) {}

  std::unique_ptr<BoundKernel> bind(std::span<const StridedShape> inputs,
                                    const StridedShape& output, int /*threads*/) const override {
    return std::make_unique<BoundReference>(op_.get(), inputs, output);
  }

 private:
  OwnedOperator op_;
};

class ReferenceEngine final : public Engine {
 public:
  std::string_view name() const override { return "reference"; }
  std::string why_unsupported(const Operator& /*op*/) const override { return {}; }
  std::unique_ptr<PreparedKernel> prepare(const Operator& op,
                                          std::span<const PostOp> /*post_ops*/) const override {
    return std::make_unique<PreparedReference>(op);
  }
};

}  // namespace
}  // namespace reference

std::unique_ptr<Engine> make_reference_engine() {
  return std::make_unique<reference::ReferenceEngine>();
}

}  // namespace pyquant
