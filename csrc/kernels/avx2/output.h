// The end of a tile of accumulators: scaled, rounded, packed and stored. Everything here has
// internal linkage; see rounding.h.
#pragma once

#include <immintrin.h>

#include "kernels/kernel_table.h"

#define PYQUANT_INLINE inline __attribute__((always_inline))

namespace pyquant::avx2 {
namespace {

constexpr std::size_t kVectorChannels = 8;

PYQUANT_INLINE void store_bytes(std::uint8_t* y, __m128i bytes, std::size_t count) {
  if (count == 16) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(y), bytes);
    return;
  }
  if ((count & 8) != 0) {
    _mm_storel_epi64(reinterpret_cast<__m128i*>(y), bytes);
    bytes = _mm_srli_si128(bytes, 8);
    y += 8;
  }
  if ((count & 7) != 0) {
    auto rest = static_cast<std::uint64_t>(_mm_cvtsi128_si64(bytes));
    for (std::size_t i = 0; i < (count & 7); ++i, rest >>= 8) {
      y[i] = static_cast<std::uint8_t>(rest);
    }
  }
}

// The same of 32 bytes.
PYQUANT_INLINE void store_bytes(std::uint8_t* y, __m256i bytes, std::size_t count) {
  if (count == 32) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(y), bytes);
  } else if (count < 16) {
    store_bytes(y, _mm256_castsi256_si128(bytes), count);
  } else {
    store_bytes(y, _mm256_castsi256_si128(bytes), 16);
    store_bytes(y + 16, _mm256_extracti128_si256(bytes, 1), count - 16);
  }
}

// Accumulators to uint8. Sums that fit int32 after scaling saturate in each of the packs, so that
// only the given bounds are left to clamp to.
struct Packer {
  const float* multipliers;
  __m256i zero_point, low, high;

  PYQUANT_INLINE Packer(const OutputStage& output, const float* scales)
      : multipliers(scales),
        zero_point(_mm256_set1_epi16(static_cast<short>(output.range.zero_point))),
        low(_mm256_set1_epi8(static_cast<char>(output.range.low))),
        high(_mm256_set1_epi8(static_cast<char>(output.range.high))) {}

  PYQUANT_INLINE __m256i round(__m256i accumulator, int vector) const {
    return _mm256_cvtps_epi32(_mm256_mul_ps(
        _mm256_cvtepi32_ps(accumulator),
        _mm256_load_ps(multipliers + kVectorChannels * static_cast<std::size_t>(vector))));
  }

  // Two vectors of the block: `a` is its vector number `vector_a`.
  PYQUANT_INLINE __m256i words(__m256i a, int vector_a, __m256i b, int vector_b) const {
    return _mm256_adds_epi16(_mm256_packs_epi32(round(a, vector_a), round(b, vector_b)),
                             zero_point);
  }

  PYQUANT_INLINE __m256i bytes(__m256i first_words, __m256i second_words) const {
    const __m256i packed = _mm256_packus_epi16(first_words, second_words);
    return _mm256_min_epu8(_mm256_max_epu8(packed, low), high);
  }
};

}  // namespace
}  // namespace pyquant::avx2
