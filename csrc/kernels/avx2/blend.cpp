#include "kernels/avx2/kernels.h"
#include "kernels/avx2/rounding.h"
#include "kernels/scalar/kernels.h"

namespace pyquant::avx2 {

void blend(const std::uint8_t* const* pixels, const BlendWeights& weights,
           std::int32_t x_zero_point, float multiplier, std::size_t count, OutputRange range,
           std::uint8_t* y) {
  const Rounder rounder(range);
  const __m256i zero_point = _mm256_set1_epi32(x_zero_point);
  const __m256 left = _mm256_set1_ps(weights.left);
  const __m256 right = _mm256_set1_ps(weights.right);
  const __m256 upper = _mm256_set1_ps(weights.upper);
  const __m256 lower = _mm256_set1_ps(weights.lower);
  const __m256 factor = _mm256_set1_ps(multiplier);
  std::size_t i = 0;
  for (; i + 8 <= count; i += 8) {
    __m256 values[4];
    for (std::size_t pixel = 0; pixel < 4; ++pixel) {
      values[pixel] = _mm256_cvtepi32_ps(_mm256_sub_epi32(widen(pixels[pixel] + i), zero_point));
    }
    const __m256 above =
        _mm256_add_ps(_mm256_mul_ps(left, values[0]), _mm256_mul_ps(right, values[1]));
    const __m256 below =
        _mm256_add_ps(_mm256_mul_ps(left, values[2]), _mm256_mul_ps(right, values[3]));
    const __m256 blended = _mm256_add_ps(_mm256_mul_ps(upper, above), _mm256_mul_ps(lower, below));
    store8(y + i, narrow(rounder.round(_mm256_mul_ps(blended, factor))));
  }
  if (i != count) {
    const std::uint8_t* const rest[] = {pixels[0] + i, pixels[1] + i, pixels[2] + i, pixels[3] + i};
    scalar::blend(rest, weights, x_zero_point, multiplier, count - i, range, y + i);
  }
}

}  // namespace pyquant::avx2
