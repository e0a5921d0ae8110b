#include <immintrin.h>

#include "kernels/avx512_vnni/kernels.h"
#include "kernels/scalar/kernels.h"

namespace pyquant::avx512_vnni {
namespace {

constexpr std::size_t kLanes = 16;
constexpr int kNearestEven = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;

struct Vectors {
  __m512 inverse_scale, scale, low, high;

  explicit Vectors(RoundingGrid grid)
      : inverse_scale(_mm512_set1_ps(grid.inverse_scale)),
        scale(_mm512_set1_ps(grid.scale)),
        low(_mm512_set1_ps(grid.low)),
        high(_mm512_set1_ps(grid.high)) {}

  // min and max return their second operand if one is NaN.
  __m512 clamped(__m512 steps) const { return _mm512_min_ps(high, _mm512_max_ps(low, steps)); }
};

}  // namespace

void fake_quantize(const float* x, std::size_t count, RoundingGrid grid, float* y,
                   std::uint8_t* passed) {
  const Vectors with(grid);
  std::size_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    const __m512 steps = _mm512_mul_ps(_mm512_loadu_ps(x + i), with.inverse_scale);
    const __m512 rounded = _mm512_roundscale_ps(steps, kNearestEven);
    const __m512 k = with.clamped(rounded);
    _mm512_storeu_ps(y + i, _mm512_mul_ps(k, with.scale));
    const __mmask16 within = _mm512_cmp_ps_mask(k, rounded, _CMP_EQ_OQ);
    __builtin_memcpy(passed + i / 8, &within, sizeof(within));
  }
  scalar::fake_quantize(x + i, count - i, grid, y + i, passed + i / 8);
}

void pass_gradient(const float* dy, const std::uint8_t* passed, std::size_t count, float* dx) {
  std::size_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    __mmask16 within;
    __builtin_memcpy(&within, passed + i / 8, sizeof(within));
    _mm512_storeu_ps(dx + i, _mm512_maskz_loadu_ps(within, dy + i));
  }
  scalar::pass_gradient(dy + i, passed + i / 8, count - i, dx + i);
}

float fake_quantize_backward(const float* x, const float* dy, std::size_t count, RoundingGrid grid,
                             float* dx) {
  const Vectors with(grid);
  __m512 sum = _mm512_setzero_ps();
  std::size_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    const __m512 steps = _mm512_mul_ps(_mm512_loadu_ps(x + i), with.inverse_scale);
    const __m512 gradient = _mm512_loadu_ps(dy + i);
    const __m512 rounded = _mm512_roundscale_ps(steps, kNearestEven);
    const __m512 k = with.clamped(rounded);
    const __mmask16 within = _mm512_cmp_ps_mask(k, rounded, _CMP_EQ_OQ);
    const __m512 slope = _mm512_mask_sub_ps(k, within, k, steps);
    _mm512_storeu_ps(dx + i, _mm512_maskz_mov_ps(within, gradient));
    sum = _mm512_add_ps(sum, _mm512_mul_ps(gradient, slope));
  }
  const float tail = scalar::fake_quantize_backward(x + i, dy + i, count - i, grid, dx + i);
  return tail + _mm512_reduce_add_ps(sum);
}

}  // namespace pyquant::avx512_vnni
