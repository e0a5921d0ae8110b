// Depthwise convolutions (one input and one output channel per group) on AVX2. FBGEMM has kernels
// for them, but those add pairs of products in int16 on every CPU and lose bits with almost all
// real weights (|a| + |b| > 128 for two neighbouring taps); these add in int32.
#pragma once

#include <memory>

#include "engines/engine.h"
#include "engines/fbgemm/layer.h"
#include "engines/fbgemm/output_stage.h"

namespace pyquant::fbgemm_engine {

// True for layers that prepare_depthwise takes: at least one vector of channels.
bool is_depthwise(const Layer& layer);

std::unique_ptr<PreparedKernel> prepare_depthwise(const Layer& layer, OutputStage stage);

}  // namespace pyquant::fbgemm_engine
