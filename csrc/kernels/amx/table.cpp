#include "kernels/amx/kernels.h"
#include "kernels/amx/tiling.h"
#include "kernels/avx2/kernels.h"
#include "kernels/avx512_vnni/kernels.h"

namespace pyquant::amx {

const KernelTable kTable = {
    .isa = "amx",
    .quantize_planes = avx512_vnni::quantize_planes,
    .dequantize_planes = avx2::dequantize_planes,
    .add = avx2::add,
    .add_float = avx2::add_float,
    .max_rows = avx512_vnni::max_rows,
    .accumulate = avx512_vnni::accumulate,
    .requantize = avx2::requantize,
    .lookup = avx512_vnni::lookup,
    .mul = avx512_vnni::mul,
    .copy_rows = avx2::copy_rows,
    .zip_rows = avx2::zip_rows,
    .transpose = avx2::transpose,
    .blend = avx2::blend,
    .min_max = avx512_vnni::min_max,
    .histogram_bins = avx512_vnni::histogram_bins,
    .fake_quantize = avx512_vnni::fake_quantize,
    .pass_gradient = avx512_vnni::pass_gradient,
    .fake_quantize_backward = avx512_vnni::fake_quantize_backward,
    .geometry = {avx512_vnni::kVectorChannels, avx512_vnni::kBlockVectors, 4, 0, kTileSteps},
    .adds_residuals = true,
    .looks_up_tables = true,
    .takes_float_sums = true,
    .gather_columns = avx512_vnni::gather_columns,
    .convolve = convolve,
    .interleave = avx512_vnni::interleave,
    .convolve_depthwise = avx512_vnni::convolve_depthwise,
    .slide_depthwise = avx512_vnni::slide_depthwise,
    .dynamic = &avx512_vnni::kDynamic,
    .multiply_adds = multiply_adds,
};

}  // namespace pyquant::amx
