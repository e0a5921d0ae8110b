// Any convolution as an implicit matrix product, and a depthwise one; see conv2d.cpp.
#pragma once

#include <memory>

#include "engines/engine.h"
#include "engines/native/conv_layer.h"

namespace pyquant::native {

std::unique_ptr<PreparedKernel> prepare_convolution(const ConvLayer& layer);

// For layers that is_depthwise() accepts.
std::unique_ptr<PreparedKernel> prepare_depthwise(const ConvLayer& layer);
bool is_depthwise(const ConvLayer& layer);

}  // namespace pyquant::native
