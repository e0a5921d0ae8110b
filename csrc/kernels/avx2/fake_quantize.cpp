#include <immintrin.h>

#include "kernels/avx2/kernels.h"
#include "kernels/scalar/kernels.h"

namespace pyquant::avx2 {
namespace {

constexpr std::size_t kLanes = 8;
constexpr int kNearestEven = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;

struct Vectors {
  __m256 inverse_scale, scale, low, high;

  explicit Vectors(RoundingGrid grid)
      : inverse_scale(_mm256_set1_ps(grid.inverse_scale)),
        scale(_mm256_set1_ps(grid.scale)),
        low(_mm256_set1_ps(grid.low)),
        high(_mm256_set1_ps(grid.high)) {}

  // min and max return their second operand if one is NaN.
  __m256 clamped(__m256 steps) const { return _mm256_min_ps(high, _mm256_max_ps(low, steps)); }
};

}  // namespace

void fake_quantize(const float* x, std::size_t count, RoundingGrid grid, float* y,
                   std::uint8_t* passed) {
  const Vectors with(grid);
  std::size_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    const __m256 steps = _mm256_mul_ps(_mm256_loadu_ps(x + i), with.inverse_scale);
    const __m256 rounded = _mm256_round_ps(steps, kNearestEven);
    const __m256 k = with.clamped(rounded);
    _mm256_storeu_ps(y + i, _mm256_mul_ps(k, with.scale));
    const int within = _mm256_movemask_ps(_mm256_cmp_ps(k, rounded, _CMP_EQ_OQ));
    passed[i / 8] = static_cast<std::uint8_t>(within);
  }
  scalar::fake_quantize(x + i, count - i, grid, y + i, passed + i / 8);
}

void pass_gradient(const float* dy, const std::uint8_t* passed, std::size_t count, float* dx) {
  const __m256i bits = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
  std::size_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    const __m256i own = _mm256_and_si256(_mm256_set1_epi32(passed[i / 8]), bits);
    const __m256 within = _mm256_castsi256_ps(_mm256_cmpeq_epi32(own, bits));
    _mm256_storeu_ps(dx + i, _mm256_and_ps(within, _mm256_loadu_ps(dy + i)));
  }
  scalar::pass_gradient(dy + i, passed + i / 8, count - i, dx + i);
}

float fake_quantize_backward(const float* x, const float* dy, std::size_t count, RoundingGrid grid,
                             float* dx) {
  const Vectors with(grid);
  __m256 sum = _mm256_setzero_ps();
  std::size_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    const __m256 steps = _mm256_mul_ps(_mm256_loadu_ps(x + i), with.inverse_scale);
    const __m256 gradient = _mm256_loadu_ps(dy + i);
    const __m256 rounded = _mm256_round_ps(steps, kNearestEven);
    const __m256 within = _mm256_and_ps(_mm256_cmp_ps(rounded, with.low, _CMP_GE_OQ),
                                        _mm256_cmp_ps(rounded, with.high, _CMP_LE_OQ));
    const __m256 slope = _mm256_sub_ps(with.clamped(rounded), _mm256_and_ps(within, steps));
    _mm256_storeu_ps(dx + i, _mm256_and_ps(within, gradient));
    sum = _mm256_add_ps(sum, _mm256_mul_ps(gradient, slope));
  }
  float lanes[kLanes];
  _mm256_storeu_ps(lanes, sum);
  float total = scalar::fake_quantize_backward(x + i, dy + i, count - i, grid, dx + i);
  for (const float lane : lanes) {
    total += lane;
  }
  return total;
}

}  // namespace pyquant::avx2
