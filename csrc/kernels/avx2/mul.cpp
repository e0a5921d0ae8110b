#include <immintrin.h>

#include "kernels/avx2/kernels.h"
#include "kernels/scalar/kernels.h"

namespace pyquant::avx2 {
namespace {

// Products of differences of bytes have 17 bits: the low and the high half of each come from two
// multiplications of 16-bit lanes. Unpacking the halves and packing the results cancel each other's
// order. All results fit int32 (kMaxMulMultiplier), so that the packs' saturation is a clamp.
struct Multiplier {
  __m256i x_zero, r_zero, zero_point, low, high;
  __m256 multiplier;

  static __m256i centered(const std::uint8_t* bytes, __m256i zero) {
    return _mm256_sub_epi16(
        _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes))), zero);
  }

  __m256i scaled(__m256i products) const {
    return _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_cvtepi32_ps(products), multiplier));
  }

  // Sixteen results as int16, not yet clamped.
  __m256i operator()(const std::uint8_t* x, const std::uint8_t* r) const {
    const __m256i a = centered(x, x_zero);
    const __m256i b = centered(r, r_zero);
    const __m256i low_half = _mm256_mullo_epi16(a, b);
    const __m256i high_half = _mm256_mulhi_epi16(a, b);
    return _mm256_adds_epi16(_mm256_packs_epi32(scaled(_mm256_unpacklo_epi16(low_half, high_half)),
                                                scaled(_mm256_unpackhi_epi16(low_half, high_half))),
                             zero_point);
  }
};

}  // namespace

void mul(MulOperand x, MulOperand r, float multiplier, std::size_t rows, std::size_t count,
         OutputRange range, std::uint8_t* y) {
  const auto words = [](std::int32_t value) {
    return _mm256_set1_epi16(static_cast<short>(value));
  };
  const auto bytes = [](std::int32_t value) { return _mm256_set1_epi8(static_cast<char>(value)); };
  const Multiplier multiply{words(x.zero_point), words(r.zero_point), words(range.zero_point),
                            bytes(range.low),    bytes(range.high),   _mm256_set1_ps(multiplier)};
  for (std::size_t row = 0; row < rows; ++row) {
    std::size_t i = 0;
    for (; i + 32 <= count; i += 32) {
      const __m256i packed = _mm256_packus_epi16(multiply(x.data + i, r.data + i),
                                                 multiply(x.data + i + 16, r.data + i + 16));
      const __m256i ordered = _mm256_permute4x64_epi64(packed, 0b11'01'10'00);
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(y + i),
                          _mm256_min_epu8(_mm256_max_epu8(ordered, multiply.low), multiply.high));
    }
    if (i != count) {
      scalar::mul({x.data + i, x.zero_point}, {r.data + i, r.zero_point}, multiplier, 1, count - i,
                  range, y + i);
    }
    x.data += count;
    y += count;
  }
}

}  // namespace pyquant::avx2
