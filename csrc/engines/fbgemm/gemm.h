// Convolutions and linear layers as matrix products on fbgemmPacked: FBGEMM copies the input blocks
// (im2col on the fly), multiplies them with weights packed once, and requantizes.
#pragma once

#include <memory>

#include "engines/engine.h"
#include "engines/fbgemm/layer.h"
#include "engines/fbgemm/output_stage.h"

namespace pyquant::fbgemm_engine {

std::unique_ptr<PreparedKernel> prepare_gemm(const Layer& layer, OutputStage stage);

}  // namespace pyquant::fbgemm_engine
