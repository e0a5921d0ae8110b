// Engines that live in libtorch. Part of the pyquant::torch library, not of the core.
#pragma once

#include "pyquant/export.h"

namespace pyquant {

// Makes the `fbgemm` and `qnnpack` engines known to every Session and Kernel made afterwards.
// Idempotent. Call it before other threads use the library.
PYQUANT_API void register_torch_engines();

}  // namespace pyquant
