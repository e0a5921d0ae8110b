#include "engines/native/convolution.h"
#include "engines/native/native_engine.h"

namespace pyquant::native {

std::unique_ptr<PreparedKernel> prepare_conv2d(const Operator& op) {
  const ConvLayer layer(op);
  return is_depthwise(layer) ? prepare_depthwise(layer) : prepare_convolution(layer);
}

// A Linear is a pointwise convolution whose pixels are its rows.
std::unique_ptr<PreparedKernel> prepare_linear(const Operator& op) {
  return prepare_convolution(ConvLayer(op));
}

}  // namespace pyquant::native
