#include "kernels/avx512_vnni/kernels.h"
#include "kernels/dynamic_rows.h"

namespace pyquant::avx512_vnni {

const DynamicKernels kDynamic = dynamic_kernels<64, std::uint8_t>();

}  // namespace pyquant::avx512_vnni
