#include "kernels/avx2/kernels.h"
#include "kernels/avx_vnni/kernels.h"

namespace pyquant::avx_vnni {

const KernelTable kTable = {
    "avx_vnni",
    avx2::quantize_planes,
    avx2::dequantize_planes,
    avx2::add,
    avx2::add_float,
    avx2::max_rows,
    avx2::accumulate,
    avx2::requantize,
    avx2::lookup,
    {8, 2, 4},
    convolve,
    interleave,
    convolve_depthwise,
};

}  // namespace pyquant::avx_vnni
