#include "kernels/avx2/kernels.h"
#include "kernels/avx_vnni/kernels.h"

namespace pyquant::avx_vnni {

const KernelTable kTable = {
    .isa = "avx_vnni",
    .quantize_planes = avx2::quantize_planes,
    .dequantize_planes = avx2::dequantize_planes,
    .add = avx2::add,
    .add_float = avx2::add_float,
    .max_rows = avx2::max_rows,
    .accumulate = avx2::accumulate,
    .requantize = avx2::requantize,
    .lookup = avx2::lookup,
    .mul = avx2::mul,
    .copy_rows = avx2::copy_rows,
    .zip_rows = avx2::zip_rows,
    .transpose = avx2::transpose,
    .blend = avx2::blend,
    .min_max = avx2::min_max,
    .histogram_bins = avx2::histogram_bins,
    .fake_quantize = avx2::fake_quantize,
    .pass_gradient = avx2::pass_gradient,
    .fake_quantize_backward = avx2::fake_quantize_backward,
    .geometry = {8, 2, 4},
    .convolve = convolve_each<convolve_block>,
    .interleave = interleave,
    .convolve_depthwise = convolve_depthwise,
    .dynamic = &avx2::kDynamicBytes,
    .multiply_adds = multiply_adds,
};

}  // namespace pyquant::avx_vnni
