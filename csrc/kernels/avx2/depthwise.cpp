#include "kernels/avx2/depthwise_columns.h"
#include "kernels/avx2/kernels.h"
#include "kernels/avx2/multiply.h"

namespace pyquant::avx2 {
namespace {

// Two rows, widened.
struct InterleaveWords {
  static constexpr std::size_t kRows = 2;

  static PYQUANT_INLINE void store(const __m256i* pixels, __m256i* column) {
    const __m256i zero = _mm256_setzero_si256();
    const __m256i low = _mm256_unpacklo_epi8(pixels[0], pixels[1]);
    const __m256i high = _mm256_unpackhi_epi8(pixels[0], pixels[1]);
    _mm256_store_si256(column, _mm256_unpacklo_epi8(low, zero));
    _mm256_store_si256(column + 1, _mm256_unpackhi_epi8(low, zero));
    _mm256_store_si256(column + 2, _mm256_unpacklo_epi8(high, zero));
    _mm256_store_si256(column + 3, _mm256_unpackhi_epi8(high, zero));
  }
};

}  // namespace

void interleave(const std::uint8_t* const* rows, std::size_t groups, std::size_t channels,
                std::size_t pixel_stride, std::size_t strips, std::size_t strip_stride,
                std::size_t count, std::uint8_t* columns) {
  interleave_columns<InterleaveWords>(rows, groups, channels, pixel_stride, strips, strip_stride,
                                      count, columns);
}

void convolve_depthwise(const DepthwiseBlock& block, const std::uint8_t* columns,
                        std::size_t pixels, std::size_t row_count, void* y) {
  convolve_columns<MultiplyWords, 2>(block, columns, pixels, row_count, y);
}

}  // namespace pyquant::avx2
