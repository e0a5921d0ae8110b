#include "kernels/avx2/kernels.h"
#include "kernels/avx512_vnni/kernels.h"

namespace pyquant::avx512_vnni {

namespace {

constexpr KernelTable table(bool vbmi) {
  return {
      .isa = "avx512_vnni",
      .quantize_planes = vbmi ? quantize_planes : avx2::quantize_planes,
      .dequantize_planes = avx2::dequantize_planes,
      .add = avx2::add,
      .add_float = avx2::add_float,
      .max_rows = max_rows,
      .accumulate = accumulate,
      .requantize = avx2::requantize,
      .lookup = vbmi ? lookup : avx2::lookup,
      .mul = mul,
      .copy_rows = avx2::copy_rows,
      .zip_rows = avx2::zip_rows,
      .transpose = avx2::transpose,
      .blend = avx2::blend,
      .min_max = min_max,
      .histogram_bins = histogram_bins,
      .fake_quantize = fake_quantize,
      .pass_gradient = pass_gradient,
      .fake_quantize_backward = fake_quantize_backward,
      .geometry = kGeometry,
      .adds_residuals = true,
      .looks_up_tables = vbmi,
      .takes_float_sums = true,
      .gather_columns = vbmi ? gather_columns : nullptr,
      .convolve = convolve_each<convolve_block>,
      .interleave = interleave,
      .convolve_depthwise = convolve_depthwise,
      .slide_depthwise = slide_depthwise,
      .dynamic = &kDynamic,
      .multiply_adds = multiply_adds,
  };
}

}  // namespace

const KernelTable kTable = table(true);
const KernelTable kTableWithoutVbmi = table(false);

}  // namespace pyquant::avx512_vnni
