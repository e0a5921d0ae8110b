#include <immintrin.h>

#include "kernels/avx512_vnni/kernels.h"

namespace pyquant::avx512_vnni {
namespace {

constexpr std::size_t kBytes = 64;
constexpr std::size_t kWordPixels = 256;  // whose bytes sum to at most 65535

inline __mmask64 mask_of(std::size_t left) {
  return left >= kBytes ? ~__mmask64{0} : ~__mmask64{0} >> (kBytes - left);
}

inline void add_words(__m256i words, __mmask16 mask, std::int32_t* sums) {
  const __m512i sum =
      _mm512_add_epi32(_mm512_maskz_loadu_epi32(mask, sums), _mm512_cvtepu16_epi32(words));
  _mm512_mask_storeu_epi32(sums, mask, sum);
}

}  // namespace

void max_rows(const std::uint8_t* const* rows, std::size_t row_count, std::size_t count,
              std::size_t pixels, std::size_t pixel_stride, std::uint8_t* y) {
  for (std::size_t pixel = 0; pixel < pixels; ++pixel, y += count) {
    for (std::size_t i = 0; i < count; i += kBytes) {
      const __mmask64 mask = mask_of(count - i);
      const std::size_t position = pixel * pixel_stride + i;
      __m512i largest = _mm512_maskz_loadu_epi8(mask, rows[0] + position);
      for (std::size_t row = 1; row < row_count; ++row) {
        largest = _mm512_max_epu8(largest, _mm512_maskz_loadu_epi8(mask, rows[row] + position));
      }
      _mm512_mask_storeu_epi8(y + i, mask, largest);
    }
  }
}

void accumulate(const std::uint8_t* x, std::size_t pixels, std::size_t pixel_stride,
                std::size_t count, std::int32_t* sums) {
  for (std::size_t i = 0; i < count; i += kBytes) {
    const __mmask64 mask = mask_of(count - i);
    for (std::size_t first = 0; first < pixels; first += kWordPixels) {
      const std::size_t end = first + kWordPixels < pixels ? first + kWordPixels : pixels;
      __m512i low = _mm512_setzero_si512();
      __m512i high = _mm512_setzero_si512();
      for (std::size_t pixel = first; pixel < end; ++pixel) {
        const __m512i bytes = _mm512_maskz_loadu_epi8(mask, x + pixel * pixel_stride + i);
        low = _mm512_add_epi16(low, _mm512_cvtepu8_epi16(_mm512_castsi512_si256(bytes)));
        high = _mm512_add_epi16(high, _mm512_cvtepu8_epi16(_mm512_extracti64x4_epi64(bytes, 1)));
      }
      add_words(_mm512_castsi512_si256(low), static_cast<__mmask16>(mask), sums + i);
      add_words(_mm512_extracti64x4_epi64(low, 1), static_cast<__mmask16>(mask >> 16),
                sums + i + 16);
      add_words(_mm512_castsi512_si256(high), static_cast<__mmask16>(mask >> 32), sums + i + 32);
      add_words(_mm512_extracti64x4_epi64(high, 1), static_cast<__mmask16>(mask >> 48),
                sums + i + 48);
    }
  }
}

}  // namespace pyquant::avx512_vnni
