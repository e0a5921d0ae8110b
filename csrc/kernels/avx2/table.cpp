#include "kernels/avx2/kernels.h"

namespace pyquant::avx2 {

const KernelTable kTable = {
    "avx2",   quantize_planes, dequantize_planes,  add,    add_float,
    max_rows, accumulate,      requantize,         lookup, {8, 2, 2},
    convolve, interleave,      convolve_depthwise,
};

}  // namespace pyquant::avx2
