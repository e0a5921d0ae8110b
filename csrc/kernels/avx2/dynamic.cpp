#include "kernels/avx2/kernels.h"
#include "kernels/dynamic_rows.h"

namespace pyquant::avx2 {

const DynamicKernels kDynamicBytes = dynamic_kernels<32, std::uint8_t>();
const DynamicKernels kDynamicWords = dynamic_kernels<32, std::uint16_t>();

}  // namespace pyquant::avx2
