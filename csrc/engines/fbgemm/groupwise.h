// 3x3 convolutions in groups of 2, 4, 8 or 16 channels on fbgemmGroupwiseConv, which needs no
// im2col and no zeros between groups.
#pragma once

#include <memory>

#include "engines/engine.h"
#include "engines/fbgemm/layer.h"
#include "engines/fbgemm/output_stage.h"

namespace pyquant::fbgemm_engine {

// True if FBGEMM's kernel takes the layer and computes it exactly.
bool is_groupwise(const Layer& layer, const OutputStage& stage);

std::unique_ptr<PreparedKernel> prepare_groupwise(const Layer& layer, OutputStage stage);

}  // namespace pyquant::fbgemm_engine
