#include "engines/native/broadcast.h"
#include "engines/native/native_engine.h"
#include "engines/native/post_ops.h"
#include "engines/native/shares.h"
#include "kernels/kernel_table.h"
#include "quant/requantize.h"

namespace pyquant::native {
namespace {

class BoundAdd final : public BoundKernel {
 public:
  BoundAdd(const Operator& op, std::span<const StridedShape> /*inputs*/, const StridedShape& output,
           int /*threads*/)
      : count_(output.elements()) {
    const auto& attributes = std::get<Add>(op.attributes);
    range_ = {op.output.qparams.zero_point, attributes.output_min, attributes.output_max};
    // The kernel takes the float32 operand first; addition of two operands commutes exactly.
    float_ = op.inputs[0].dtype == DType::kFloat32 || op.inputs[1].dtype == DType::kFloat32;
    swapped_ = op.inputs[1].dtype == DType::kFloat32;
    float_multiplier_ = inverse_of(op.output.qparams.scale);
    a_ = add_operand(op, swapped_ ? 1 : 0);
    b_ = add_operand(op, swapped_ ? 0 : 1);
  }

  void run(const RunArgs& args) override {
    const void* a = args.inputs[swapped_ ? 1 : 0];
    const auto* b = static_cast<const std::uint8_t*>(args.inputs[swapped_ ? 0 : 1]);
    auto* y = static_cast<std::uint8_t*>(args.output);
    for_each_share(*args.pool, count_, [&](std::int64_t first, std::size_t count) {
      if (float_) {
        kernels_.add_float(static_cast<const float*>(a) + first, float_multiplier_, b + first, b_,
                           count, range_, y + first);
      } else {
        kernels_.add(static_cast<const std::uint8_t*>(a) + first, a_, b + first, b_, count, range_,
                     y + first);
      }
    });
  }

 private:
  const KernelTable& kernels_ = kernel_table();
  std::int64_t count_;
  bool float_ = false, swapped_ = false;
  float float_multiplier_ = 0.0F;
  AddOperand a_{}, b_{};
  OutputRange range_{};
};

class BoundBroadcastAdd final : public BoundKernel {
 public:
  BoundBroadcastAdd(const Operator& op, std::span<const StridedShape> inputs,
                    const StridedShape& output, int /*threads*/)
      : broadcast_(inputs[0], inputs[1], output),
        x_(add_operand(op, 1 - broadcast_.repeated())),
        r_(add_operand(op, broadcast_.repeated())) {
    const auto& attributes = std::get<Add>(op.attributes);
    range_ = {op.output.qparams.zero_point, attributes.output_min, attributes.output_max};
  }

  void run(const RunArgs& args) override {
    broadcast_.run(args, [this](const std::uint8_t* x, const std::uint8_t* r, std::size_t rows,
                                std::size_t count, std::uint8_t* y) {
      for (std::size_t row = 0; row < rows; ++row) {
        kernels_.add(x + row * count, x_, r, r_, count, range_, y + row * count);
      }
    });
  }

 private:
  const KernelTable& kernels_ = kernel_table();
  Broadcast broadcast_;
  AddOperand x_, r_;
  OutputRange range_{};
};

class BoundTable final : public BoundKernel {
 public:
  BoundTable(const Operator& op, std::span<const StridedShape> /*inputs*/,
             const StridedShape& output, int /*threads*/)
      : count_(output.elements()), table_(std::get<LookupTable>(op.attributes)) {}

  void run(const RunArgs& args) override {
    const auto* x = static_cast<const std::uint8_t*>(args.inputs[0]);
    auto* y = static_cast<std::uint8_t*>(args.output);
    for_each_share(*args.pool, count_, [&](std::int64_t first, std::size_t count) {
      kernels_.lookup(x + first, table_.values.data(), count, y + first);
    });
  }

 private:
  const KernelTable& kernels_ = kernel_table();
  std::int64_t count_;
  LookupTable table_;
};

}  // namespace

std::unique_ptr<PreparedKernel> prepare_add(const Operator& op) {
  if (std::get<Add>(op.attributes).broadcast) {
    return std::make_unique<WeightlessKernel<BoundBroadcastAdd>>(op);
  }
  return std::make_unique<WeightlessKernel<BoundAdd>>(op);
}

std::unique_ptr<PreparedKernel> prepare_table(const Operator& op) {
  return std::make_unique<WeightlessKernel<BoundTable>>(op);
}

}  // namespace pyquant::native
