#include "kernels/scalar/kernels.h"

namespace pyquant::scalar {

const KernelTable kTable = {
    .isa = "scalar",
    .quantize_planes = quantize_planes,
    .dequantize_planes = dequantize_planes,
    .add = add,
    .add_float = add_float,
    .max_rows = max_rows,
    .accumulate = accumulate,
    .requantize = requantize,
    .lookup = lookup,
    .mul = mul,
    .copy_rows = copy_rows,
    .zip_rows = zip_rows,
    .transpose = transpose,
    .blend = blend,
    .min_max = min_max,
    .histogram_bins = histogram_bins,
    .fake_quantize = fake_quantize,
    .pass_gradient = pass_gradient,
    .fake_quantize_backward = fake_quantize_backward,
    .geometry = {4, 4, 4},
    .convolve = convolve_each<convolve_block>,
    .interleave = interleave,
    .convolve_depthwise = convolve_depthwise,
    .dynamic = &kDynamicBytes,
};

}  // namespace pyquant::scalar
