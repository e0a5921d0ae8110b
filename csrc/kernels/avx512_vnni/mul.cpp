#include <immintrin.h>

#include "kernels/avx512_vnni/kernels.h"

namespace pyquant::avx512_vnni {
namespace {

// As in avx2, on 32 elements at a time.
struct Multiplier {
  __m512i x_zero, r_zero, zero_point, low, high;
  __m512 multiplier;

  static __m512i centered(const std::uint8_t* bytes, __mmask32 mask, __m512i zero) {
    return _mm512_sub_epi16(_mm512_cvtepu8_epi16(_mm256_maskz_loadu_epi8(mask, bytes)), zero);
  }

  __m512i scaled(__m512i products) const {
    return _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_cvtepi32_ps(products), multiplier));
  }

  // Results as int16, not yet clamped.
  __m512i operator()(const std::uint8_t* x, const std::uint8_t* r, __mmask32 mask) const {
    const __m512i a = centered(x, mask, x_zero);
    const __m512i b = centered(r, mask, r_zero);
    const __m512i low_half = _mm512_mullo_epi16(a, b);
    const __m512i high_half = _mm512_mulhi_epi16(a, b);
    return _mm512_adds_epi16(_mm512_packs_epi32(scaled(_mm512_unpacklo_epi16(low_half, high_half)),
                                                scaled(_mm512_unpackhi_epi16(low_half, high_half))),
                             zero_point);
  }
};

}  // namespace

void mul(MulOperand x, MulOperand r, float multiplier, std::size_t rows, std::size_t count,
         OutputRange range, std::uint8_t* y) {
  const auto words = [](std::int32_t value) {
    return _mm512_set1_epi16(static_cast<short>(value));
  };
  const auto bytes = [](std::int32_t value) { return _mm512_set1_epi8(static_cast<char>(value)); };
  const Multiplier multiply{words(x.zero_point), words(r.zero_point), words(range.zero_point),
                            bytes(range.low),    bytes(range.high),   _mm512_set1_ps(multiplier)};
  const __m512i order = _mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7);
  for (std::size_t row = 0; row < rows; ++row) {
    for (std::size_t i = 0; i < count; i += 64) {
      const std::size_t left = count - i;
      const __mmask64 mask = ~__mmask64{0} >> (left < 64 ? 64 - left : 0);
      const auto first = static_cast<__mmask32>(mask);
      const auto second = static_cast<__mmask32>(mask >> 32);
      const __m512i packed =
          _mm512_packus_epi16(multiply(x.data + i, r.data + i, first),
                              multiply(x.data + i + 32, r.data + i + 32, second));
      const __m512i ordered = _mm512_permutexvar_epi64(order, packed);
      _mm512_mask_storeu_epi8(
          y + i, mask, _mm512_min_epu8(_mm512_max_epu8(ordered, multiply.low), multiply.high));
    }
    x.data += count;
    y += count;
  }
}

}  // namespace pyquant::avx512_vnni
