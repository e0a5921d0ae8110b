// Pixels of a depthwise convolution: 64 channels, or fewer of several strips side by side (see
// DepthwiseBlock). Everything here has internal linkage; see rounding.h in avx2.
#pragma once

#include "kernels/avx512_vnni/output.h"

namespace pyquant::avx512_vnni {
namespace {

// The channels of a pixel of each strip.
template <int kStrips>
PYQUANT_INLINE __m512i load_strips(const std::uint8_t* x, std::size_t stride, __mmask64 mask) {
  if constexpr (kStrips == 1) {
    return _mm512_maskz_loadu_epi8(mask, x);
  } else if constexpr (kStrips == 2) {
    const auto half = static_cast<__mmask32>(mask);
    return _mm512_inserti64x4(_mm512_castsi256_si512(_mm256_maskz_loadu_epi8(half, x)),
                              _mm256_maskz_loadu_epi8(half, x + stride), 1);
  } else {
    const auto quarter = static_cast<__mmask16>(mask);
    __m512i value = _mm512_castsi128_si512(_mm_maskz_loadu_epi8(quarter, x));
    value = _mm512_inserti32x4(value, _mm_maskz_loadu_epi8(quarter, x + stride), 1);
    value = _mm512_inserti32x4(value, _mm_maskz_loadu_epi8(quarter, x + 2 * stride), 2);
    return _mm512_inserti32x4(value, _mm_maskz_loadu_epi8(quarter, x + 3 * stride), 3);
  }
}

// Four rows of a column, interleaved bytewise: 16 channels in each vector.
PYQUANT_INLINE Quad interleave_rows(__m512i a, __m512i b, __m512i c, __m512i d) {
  const __m512i ab_low = _mm512_unpacklo_epi8(a, b);
  const __m512i ab_high = _mm512_unpackhi_epi8(a, b);
  const __m512i cd_low = _mm512_unpacklo_epi8(c, d);
  const __m512i cd_high = _mm512_unpackhi_epi8(c, d);
  return {_mm512_unpacklo_epi16(ab_low, cd_low), _mm512_unpackhi_epi16(ab_low, cd_low),
          _mm512_unpacklo_epi16(ab_high, cd_high), _mm512_unpackhi_epi16(ab_high, cd_high)};
}

// Stores one pixel of each strip. kStrips: as many as the block has, or 0 for any number.
template <int kStrips, PostOp kPostOp>
PYQUANT_INLINE void store_strips(const DepthwiseBlock& block,
                                 const Packer<kBlockVectors, kPostOp>& packer, const Scaled& values,
                                 std::uint8_t* y) {
  const std::size_t strips = kStrips == 0 ? block.strips : kStrips;
  const __m512i bytes = packer.finish(values, [&](std::ptrdiff_t distance) {
    const std::uint8_t* other = y + distance;
    return strips == 1   ? load_strips<1>(other, block.strip_stride, packer.channels)
           : strips == 2 ? load_strips<2>(other, block.strip_stride, packer.channels)
                         : load_strips<4>(other, block.strip_stride, packer.channels);
  });
  if (strips == 1) {
    _mm512_mask_storeu_epi8(y, packer.channels, bytes);
  } else if (strips == 2) {
    const auto half = static_cast<__mmask32>(packer.channels);
    _mm256_mask_storeu_epi8(y, half, _mm512_castsi512_si256(bytes));
    _mm256_mask_storeu_epi8(y + block.strip_stride, half, _mm512_extracti64x4_epi64(bytes, 1));
  } else {
    const auto quarter = static_cast<__mmask16>(packer.channels);
    const std::size_t stride = block.strip_stride;
    _mm_mask_storeu_epi8(y, quarter, _mm512_castsi512_si128(bytes));
    _mm_mask_storeu_epi8(y + stride, quarter, _mm512_extracti32x4_epi32(bytes, 1));
    _mm_mask_storeu_epi8(y + 2 * stride, quarter, _mm512_extracti32x4_epi32(bytes, 2));
    _mm_mask_storeu_epi8(y + 3 * stride, quarter, _mm512_extracti32x4_epi32(bytes, 3));
  }
}

}  // namespace
}  // namespace pyquant::avx512_vnni
