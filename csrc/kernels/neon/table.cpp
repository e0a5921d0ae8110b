#include "kernels/neon/kernels.h"
#include "kernels/scalar/kernels.h"

namespace pyquant::neon {

const KernelTable kTable = {
    "neon",
    scalar::quantize_planes,
    scalar::dequantize_planes,
    scalar::add,
    scalar::add_float,
    scalar::max_rows,
    scalar::accumulate,
    scalar::requantize,
    scalar::lookup,
    {4, 4, 2},
    convolve,
    interleave,
    convolve_depthwise,
};

}  // namespace pyquant::neon
