#include "kernels/avx2/depthwise_columns.h"
#include "kernels/avx_vnni/kernels.h"
#include "kernels/avx_vnni/multiply.h"

namespace pyquant::avx_vnni {
namespace {

// Four rows, as they are.
struct InterleaveBytes {
  static constexpr std::size_t kRows = 4;

  static PYQUANT_INLINE void store(const __m256i* pixels, __m256i* column) {
    const __m256i ab_low = _mm256_unpacklo_epi8(pixels[0], pixels[1]);
    const __m256i ab_high = _mm256_unpackhi_epi8(pixels[0], pixels[1]);
    const __m256i cd_low = _mm256_unpacklo_epi8(pixels[2], pixels[3]);
    const __m256i cd_high = _mm256_unpackhi_epi8(pixels[2], pixels[3]);
    _mm256_store_si256(column, _mm256_unpacklo_epi16(ab_low, cd_low));
    _mm256_store_si256(column + 1, _mm256_unpackhi_epi16(ab_low, cd_low));
    _mm256_store_si256(column + 2, _mm256_unpacklo_epi16(ab_high, cd_high));
    _mm256_store_si256(column + 3, _mm256_unpackhi_epi16(ab_high, cd_high));
  }
};

}  // namespace

void interleave(const std::uint8_t* const* rows, std::size_t groups, std::size_t channels,
                std::size_t pixel_stride, std::size_t strips, std::size_t strip_stride,
                std::size_t count, std::uint8_t* columns) {
  avx2::interleave_columns<InterleaveBytes>(rows, groups, channels, pixel_stride, strips,
                                            strip_stride, count, columns);
}

void convolve_depthwise(const DepthwiseBlock& block, const std::uint8_t* columns,
                        std::size_t pixels, std::size_t row_count, void* y) {
  avx2::convolve_columns<MultiplyBytes, 1>(block, columns, pixels, row_count, y);
}

}  // namespace pyquant::avx_vnni
