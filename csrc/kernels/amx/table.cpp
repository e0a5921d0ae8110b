#include "kernels/amx/kernels.h"
#include "kernels/avx2/kernels.h"
#include "kernels/avx512_vnni/kernels.h"

namespace pyquant::amx {

const KernelTable kTable = {
    "amx",
    avx2::quantize_planes,
    avx2::dequantize_planes,
    avx2::add,
    avx2::add_float,
    avx2::max_rows,
    avx2::accumulate,
    avx2::requantize,
    avx2::lookup,
    convolve,
    avx512_vnni::interleave,
    avx512_vnni::convolve_depthwise,
    multiply_adds,
};

}  // namespace pyquant::amx
