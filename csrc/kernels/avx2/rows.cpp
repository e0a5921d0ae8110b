#include <immintrin.h>

#include "kernels/avx2/kernels.h"
#include "kernels/avx2/rounding.h"
#include "kernels/scalar/kernels.h"

namespace pyquant::avx2 {
namespace {

constexpr std::size_t kWordPixels = 256;  // whose bytes sum to at most 65535

}  // namespace

void max_rows(const std::uint8_t* const* rows, std::size_t row_count, std::size_t count,
              std::size_t pixels, std::size_t pixel_stride, std::uint8_t* y) {
  for (std::size_t pixel = 0; pixel < pixels; ++pixel, y += count) {
    const std::size_t first = pixel * pixel_stride;
    std::size_t i = 0;
    for (; i + 32 <= count; i += 32) {
      __m256i largest = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(rows[0] + first + i));
      for (std::size_t row = 1; row < row_count; ++row) {
        largest = _mm256_max_epu8(
            largest, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(rows[row] + first + i)));
      }
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(y + i), largest);
    }
    for (; i < count; ++i) {
      std::uint8_t largest = rows[0][first + i];
      for (std::size_t row = 1; row < row_count; ++row) {
        largest = rows[row][first + i] > largest ? rows[row][first + i] : largest;
      }
      y[i] = largest;
    }
  }
}

void accumulate(const std::uint8_t* x, std::size_t pixels, std::size_t pixel_stride,
                std::size_t count, std::int32_t* sums) {
  std::size_t i = 0;
  for (; i + 16 <= count; i += 16) {
    for (std::size_t first = 0; first < pixels; first += kWordPixels) {
      const std::size_t end = first + kWordPixels < pixels ? first + kWordPixels : pixels;
      __m256i words = _mm256_setzero_si256();
      for (std::size_t pixel = first; pixel < end; ++pixel) {
        const auto* bytes = reinterpret_cast<const __m128i*>(x + pixel * pixel_stride + i);
        words = _mm256_add_epi16(words, _mm256_cvtepu8_epi16(_mm_loadu_si128(bytes)));
      }
      auto* sum = reinterpret_cast<__m256i*>(sums + i);
      const __m256i low = _mm256_cvtepu16_epi32(_mm256_castsi256_si128(words));
      const __m256i high = _mm256_cvtepu16_epi32(_mm256_extracti128_si256(words, 1));
      _mm256_storeu_si256(sum, _mm256_add_epi32(_mm256_loadu_si256(sum), low));
      _mm256_storeu_si256(sum + 1, _mm256_add_epi32(_mm256_loadu_si256(sum + 1), high));
    }
  }
  if (i != count) {
    scalar::accumulate(x + i, pixels, pixel_stride, count - i, sums + i);
  }
}

void lookup(const std::uint8_t* x, const std::uint8_t* values, std::size_t count, std::uint8_t* y) {
  // Sixteen shuffles of sixteen entries: a shuffle gives zero where bit 7 of the index is set, so
  // the index minus 16 * part, with everything above 15 saturated to have bit 7, selects one part.
  __m256i parts[16];
  for (std::size_t part = 0; part < 16; ++part) {
    parts[part] = _mm256_broadcastsi128_si256(
        _mm_loadu_si128(reinterpret_cast<const __m128i*>(values + 16 * part)));
  }
  const __m256i above = _mm256_set1_epi8(0x70);
  std::size_t i = 0;
  for (; i + 32 <= count; i += 32) {
    const __m256i index = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x + i));
    __m256i result = _mm256_setzero_si256();
    for (std::size_t part = 0; part < 16; ++part) {
      const __m256i local = _mm256_xor_si256(index, _mm256_set1_epi8(static_cast<char>(part << 4)));
      result =
          _mm256_or_si256(result, _mm256_shuffle_epi8(parts[part], _mm256_adds_epu8(local, above)));
    }
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(y + i), result);
  }
  scalar::lookup(x + i, values, count - i, y + i);
}

}  // namespace pyquant::avx2
