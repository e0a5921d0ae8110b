#include "kernels/neon_dotprod/kernels.h"
#include "kernels/scalar/kernels.h"

namespace pyquant::neon_dotprod {

const KernelTable kTable = {
    .isa = "neon_dotprod",
    .quantize_planes = scalar::quantize_planes,
    .dequantize_planes = scalar::dequantize_planes,
    .add = scalar::add,
    .add_float = scalar::add_float,
    .max_rows = scalar::max_rows,
    .accumulate = scalar::accumulate,
    .requantize = scalar::requantize,
    .lookup = scalar::lookup,
    .mul = scalar::mul,
    .copy_rows = scalar::copy_rows,
    .zip_rows = scalar::zip_rows,
    .transpose = scalar::transpose,
    .blend = scalar::blend,
    .min_max = scalar::min_max,
    .histogram_bins = scalar::histogram_bins,
    .fake_quantize = scalar::fake_quantize,
    .pass_gradient = scalar::pass_gradient,
    .fake_quantize_backward = scalar::fake_quantize_backward,
    .geometry = {4, 4, 4, 128},
    .convolve = convolve_each<convolve_block>,
    .interleave = interleave,
    .convolve_depthwise = convolve_depthwise,
    .dynamic = &scalar::kDynamicBytes,
};

}  // namespace pyquant::neon_dotprod
