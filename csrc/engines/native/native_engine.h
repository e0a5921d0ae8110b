// The `native` engine: pyquant's own SIMD kernels (kernels/), chosen for the CPU at run time.
#pragma once

#include <memory>
#include <span>

#include "engines/engine.h"

namespace pyquant {

std::unique_ptr<Engine> make_native_engine();

namespace native {

// One maker per kind of operator, in the file of its name.
using Maker = std::unique_ptr<PreparedKernel> (*)(const Operator& op);

std::unique_ptr<PreparedKernel> prepare_quantize(const Operator& op);
std::unique_ptr<PreparedKernel> prepare_dequantize(const Operator& op);
std::unique_ptr<PreparedKernel> prepare_conv2d(const Operator& op);
std::unique_ptr<PreparedKernel> prepare_linear(const Operator& op);
std::unique_ptr<PreparedKernel> prepare_add(const Operator& op);
std::unique_ptr<PreparedKernel> prepare_max_pool2d(const Operator& op);
std::unique_ptr<PreparedKernel> prepare_avg_pool2d(const Operator& op);
std::unique_ptr<PreparedKernel> prepare_adaptive_avg_pool2d(const Operator& op);
std::unique_ptr<PreparedKernel> prepare_adaptive_max_pool2d(const Operator& op);
std::unique_ptr<PreparedKernel> prepare_table(const Operator& op);
std::unique_ptr<PreparedKernel> prepare_mul(const Operator& op);
std::unique_ptr<PreparedKernel> prepare_flatten(const Operator& op);
std::unique_ptr<PreparedKernel> prepare_pad(const Operator& op);
std::unique_ptr<PreparedKernel> prepare_concat(const Operator& op);
std::unique_ptr<PreparedKernel> prepare_slice(const Operator& op);
std::unique_ptr<PreparedKernel> prepare_channel_shuffle(const Operator& op);
std::unique_ptr<PreparedKernel> prepare_conv_transpose2d(const Operator& op);
std::unique_ptr<PreparedKernel> prepare_resize_nearest(const Operator& op);
std::unique_ptr<PreparedKernel> prepare_resize_bilinear(const Operator& op);

// A Conv2d or Linear with post-ops.
std::unique_ptr<PreparedKernel> prepare_fused(const Operator& op, std::span<const PostOp> post_ops);

// Which tensors of a kernel may be some of the channels of wider ones.
struct Strides {
  bool inputs = false, output = false;
};

// A prepared kernel without weights: binding is constructing Bound(op, inputs, output, threads).
template <typename Bound, Strides kStrides = {}>
class WeightlessKernel final : public PreparedKernel {
 public:
  explicit WeightlessKernel(const Operator& op) : op_(op) {}

  std::unique_ptr<BoundKernel> bind(std::span<const StridedShape> inputs,
                                    const StridedShape& output, int threads) const override {
    return std::make_unique<Bound>(op_, inputs, output, threads);
  }

  bool takes_strided_input(std::size_t /*input*/) const override { return kStrides.inputs; }
  bool takes_strided_output() const override { return kStrides.output; }

 private:
  Operator op_;
};

}  // namespace native
}  // namespace pyquant
