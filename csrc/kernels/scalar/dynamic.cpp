#include "kernels/dynamic_rows.h"
#include "kernels/scalar/kernels.h"

namespace pyquant::scalar {

const DynamicKernels kDynamicBytes = dynamic_kernels<16, std::uint8_t>();
const DynamicKernels kDynamicWords = dynamic_kernels<16, std::uint16_t>();

}  // namespace pyquant::scalar
