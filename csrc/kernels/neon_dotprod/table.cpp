#include "kernels/neon_dotprod/kernels.h"
#include "kernels/scalar/kernels.h"

namespace pyquant::neon_dotprod {

const KernelTable kTable = {
    "neon_dotprod",
    scalar::quantize_planes,
    scalar::dequantize_planes,
    scalar::add,
    scalar::add_float,
    scalar::max_rows,
    scalar::accumulate,
    scalar::requantize,
    scalar::lookup,
    {4, 4, 4, 128},
    convolve,
    interleave,
    convolve_depthwise,
};

}  // namespace pyquant::neon_dotprod
