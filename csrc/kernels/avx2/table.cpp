#include "kernels/avx2/kernels.h"

namespace pyquant::avx2 {

const KernelTable kTable = {
    .isa = "avx2",
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
    .geometry = {8, 2, 2},
    .convolve = convolve_each<convolve_block>,
    .interleave = interleave,
    .convolve_depthwise = convolve_depthwise,
    .dynamic = &kDynamicWords,
    .multiply_adds = multiply_adds,
};

}  // namespace pyquant::avx2
