// Eight or thirty-two floats to uint8 by the rounding rule of quant/requantize.h. Everything here
// has internal linkage: these files are compiled with wider instructions than the rest, and a
// shared inline function could be the copy that the linker keeps for the baseline.
#pragma once

#include <immintrin.h>

#include "kernels/kernel_table.h"

namespace pyquant::avx2 {
namespace {

struct Rounder {
  __m256 min, max;
  __m256i zero_point;

  explicit Rounder(const OutputRange& range)
      : min(_mm256_set1_ps(static_cast<float>(range.low - range.zero_point))),
        max(_mm256_set1_ps(static_cast<float>(range.high - range.zero_point))),
        zero_point(_mm256_set1_epi32(range.zero_point)) {}

  // Eight results as int32. max(value, min) gives `min` for NaN, as round_to_uint8 does.
  __m256i round(__m256 value) const {
    const __m256 clamped = _mm256_min_ps(_mm256_max_ps(value, min), max);
    return _mm256_add_epi32(_mm256_cvtps_epi32(clamped), zero_point);
  }
};

// Eight int32 within 0..255 to eight bytes.
inline __m128i narrow(__m256i values) {
  const __m256i words = _mm256_packus_epi32(values, values);
  const __m256i bytes = _mm256_packus_epi16(words, words);
  return _mm_unpacklo_epi32(_mm256_castsi256_si128(bytes), _mm256_extracti128_si256(bytes, 1));
}

// Four times eight int32 within 0..255 to 32 bytes in order.
inline __m256i narrow(__m256i a, __m256i b, __m256i c, __m256i d) {
  const __m256i bytes = _mm256_packus_epi16(_mm256_packus_epi32(a, b), _mm256_packus_epi32(c, d));
  return _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}

inline __m256i widen(const std::uint8_t* x) {
  return _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(x)));
}

inline void store8(std::uint8_t* y, __m128i bytes) {
  _mm_storel_epi64(reinterpret_cast<__m128i*>(y), bytes);
}

}  // namespace
}  // namespace pyquant::avx2
