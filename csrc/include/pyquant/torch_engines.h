// Engines that live in libtorch. Part of the pyquant::torch library, not of the core.
#pragma once

namespace pyquant {

// Makes the `fbgemm` and `qnnpack` engines known. Idempotent; call it before the first use.
void register_torch_engines();

}  // namespace pyquant
