#include <algorithm>

#include "engines/native/broadcast.h"
#include "engines/native/native_engine.h"
#include "kernels/kernel_table.h"
#include "quant/requantize.h"

namespace pyquant::native {
namespace {

class BoundMul final : public BoundKernel {
 public:
  BoundMul(const Operator& op, std::span<const StridedShape> inputs, const StridedShape& output,
           int /*threads*/)
      : broadcast_(inputs[0], inputs[1], output) {
    const auto& attributes = std::get<Mul>(op.attributes);
    range_ = {op.output.qparams.zero_point, attributes.output_min, attributes.output_max};
    multiplier_ =
        std::min(requantize_multiplier(op.inputs[0].qparams.scale, op.inputs[1].qparams.scale,
                                       op.output.qparams.scale),
                 kMaxMulMultiplier);
    x_zero_ = op.inputs[1 - broadcast_.repeated()].qparams.zero_point;
    r_zero_ = op.inputs[broadcast_.repeated()].qparams.zero_point;
  }

  void run(const RunArgs& args) override {
    broadcast_.run(args, [this](const std::uint8_t* x, const std::uint8_t* r, std::size_t rows,
                                std::size_t count, std::uint8_t* y) {
      kernels_.mul({x, x_zero_}, {r, r_zero_}, multiplier_, rows, count, range_, y);
    });
  }

 private:
  const KernelTable& kernels_ = kernel_table();
  Broadcast broadcast_;
  std::int32_t x_zero_ = 0, r_zero_ = 0;
  float multiplier_ = 0.0F;
  OutputRange range_{};
};

}  // namespace

std::unique_ptr<PreparedKernel> prepare_mul(const Operator& op) {
  return std::make_unique<WeightlessKernel<BoundMul>>(op);
}

}  // namespace pyquant::native
