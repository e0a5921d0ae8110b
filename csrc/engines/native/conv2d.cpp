#include "engines/native/convolution.h"
#include "engines/native/native_engine.h"

namespace pyquant::native {

// A Linear is a pointwise convolution whose pixels are its rows.
std::unique_ptr<PreparedKernel> prepare_fused(const Operator& op,
                                              std::span<const PostOp> post_ops) {
  const ConvLayer layer(op, post_ops);
  return is_depthwise(layer) ? prepare_depthwise(layer) : prepare_convolution(layer);
}

std::unique_ptr<PreparedKernel> prepare_conv2d(const Operator& op) { return prepare_fused(op, {}); }

std::unique_ptr<PreparedKernel> prepare_linear(const Operator& op) { return prepare_fused(op, {}); }

}  // namespace pyquant::native
