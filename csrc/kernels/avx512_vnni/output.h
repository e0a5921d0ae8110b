// The end of a tile of accumulators: scaled, rounded, packed and stored. Everything here has
// internal linkage; see rounding.h in avx2.
#pragma once

#include <immintrin.h>

#include "kernels/avx512_vnni/kernels.h"

#define PYQUANT_INLINE inline __attribute__((always_inline))

namespace pyquant::avx512_vnni {
namespace {

// Stores pixels of kVectors vectors of accumulators as uint8. Sums that fit int32 after scaling
// saturate in each of the packs, so that only the given bounds are left to clamp to.
template <int kVectors>
struct Packer {
  static constexpr int kPixels = kVectors >= 3 ? 1 : 4 / kVectors;  // that fill 64 bytes

  const float* multipliers;
  __m512i zero_point, low, high;
  __mmask64 channels;
  bool plain;  // no zero point, and all of 0..255: the packs' saturation is enough

  PYQUANT_INLINE Packer(const OutputStage& output, const float* scales, std::size_t channel_count)
      : multipliers(scales),
        zero_point(_mm512_set1_epi16(static_cast<short>(output.range.zero_point))),
        low(_mm512_set1_epi8(static_cast<char>(output.range.low))),
        high(_mm512_set1_epi8(static_cast<char>(output.range.high))),
        channels(~__mmask64{0} >> (64 - channel_count)),
        plain(output.range.zero_point == 0 && output.range.low == 0 && output.range.high == 255) {}

  PYQUANT_INLINE __m512i round(__m512i accumulator, int vector) const {
    return _mm512_cvtps_epi32(
        _mm512_mul_ps(_mm512_cvtepi32_ps(accumulator), _mm512_load_ps(multipliers + 16 * vector)));
  }

  PYQUANT_INLINE __m512i pack(__m512i a, __m512i b, __m512i c, __m512i d) const {
    __m512i first = _mm512_packs_epi32(a, b);
    __m512i second = _mm512_packs_epi32(c, d);
    if (plain) {
      return _mm512_packus_epi16(first, second);
    }
    first = _mm512_adds_epi16(first, zero_point);
    second = _mm512_adds_epi16(second, zero_point);
    return _mm512_min_epu8(_mm512_max_epu8(_mm512_packus_epi16(first, second), low), high);
  }

  // A pixel of four vectors.
  PYQUANT_INLINE __m512i bytes(const __m512i* acc) const {
    return pack(round(acc[0], 0), round(acc[1], 1), round(acc[2], 2), round(acc[3], 3));
  }

  // acc: kPixels times kVectors accumulators; the first `count` pixels are stored.
  PYQUANT_INLINE void store(const __m512i* acc, int count, std::uint8_t* y,
                            std::size_t stride) const {
    if constexpr (kVectors == 4) {
      _mm512_mask_storeu_epi8(y, channels, bytes(acc));
    } else if constexpr (kVectors == 3) {
      const __m512i packed =
          pack(round(acc[0], 0), round(acc[1], 1), round(acc[2], 2), _mm512_setzero_si512());
      const __m512i together =
          _mm512_setr_epi32(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, 15, 15, 15, 15);
      _mm512_mask_storeu_epi8(y, channels, _mm512_permutexvar_epi32(together, packed));
    } else if constexpr (kVectors == 2) {
      const __m512i packed =
          pack(round(acc[0], 0), round(acc[1], 1), round(acc[2], 0), round(acc[3], 1));
      const __m512i sorted =
          _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7), packed);
      const auto mask = static_cast<__mmask32>(channels);
      _mm256_mask_storeu_epi8(y, mask, _mm512_castsi512_si256(sorted));
      if (count > 1) {
        _mm256_mask_storeu_epi8(y + stride, mask, _mm512_extracti64x4_epi64(sorted, 1));
      }
    } else {
      const __m512i packed =
          pack(round(acc[0], 0), round(acc[1], 0), round(acc[2], 0), round(acc[3], 0));
      const __m512i sorted = _mm512_permutexvar_epi32(
          _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15), packed);
      const auto mask = static_cast<__mmask16>(channels);
      _mm_mask_storeu_epi8(y, mask, _mm512_castsi512_si128(sorted));
      if (count > 1) {
        _mm_mask_storeu_epi8(y + stride, mask, _mm512_extracti32x4_epi32(sorted, 1));
      }
      if (count > 2) {
        _mm_mask_storeu_epi8(y + 2 * stride, mask, _mm512_extracti32x4_epi32(sorted, 2));
      }
      if (count > 3) {
        _mm_mask_storeu_epi8(y + 3 * stride, mask, _mm512_extracti32x4_epi32(sorted, 3));
      }
    }
  }
};

// acc += sums of four products of unsigned and signed bytes. As inline assembly because GCC 12
// moves the accumulators of large tiles to memory and back around the intrinsic.
PYQUANT_INLINE void multiply_add(__m512i& acc, __m512i unsigned_bytes, __m512i signed_bytes) {
  asm volatile("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(unsigned_bytes), "v"(signed_bytes));
}

// The same with signed bytes at a constant distance from `address`.
template <int kDistance>
PYQUANT_INLINE void multiply_add(__m512i& acc, __m512i unsigned_bytes, const std::int8_t* address) {
  asm volatile("vpdpbusd %c3(%2), %1, %0"
               : "+v"(acc)
               : "v"(unsigned_bytes), "r"(address), "i"(kDistance));
}

template <int kDistance>
PYQUANT_INLINE __m512i load(const void* address) {
  __m512i value;
  asm volatile("vmovdqu64 %c2(%1), %0" : "=v"(value) : "r"(address), "i"(kDistance));
  return value;
}

}  // namespace
}  // namespace pyquant::avx512_vnni
