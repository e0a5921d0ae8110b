// How FBGEMM's matrix products are cut into blocks.
#pragma once

#include <fbgemm/Fbgemm.h>

#include "engines/fbgemm/layer.h"

namespace pyquant::fbgemm_engine {

// For the ISA that FBGEMM uses now.
fbgemm::BlockingFactors blocking_factors(const Layer& layer);

}  // namespace pyquant::fbgemm_engine
