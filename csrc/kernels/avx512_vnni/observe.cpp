#include <immintrin.h>

#include "kernels/avx512_vnni/kernels.h"
#include "kernels/scalar/kernels.h"

namespace pyquant::avx512_vnni {
namespace {

constexpr std::size_t kLanes = 16;
constexpr std::size_t kChains = 4;  // of operations that wait for each other

}  // namespace

bool min_max(const float* x, std::size_t count, float* min, float* max) {
  constexpr std::size_t kStep = kChains * kLanes;
  if (count < kStep) {
    return scalar::min_max(x, count, min, max);
  }
  const __m512 zero = _mm512_setzero_ps();
  __m512 low[kChains], high[kChains], check[kChains];
  for (std::size_t v = 0; v < kChains; ++v) {
    low[v] = high[v] = _mm512_loadu_ps(x + v * kLanes);
    check[v] = zero;
  }
  const auto visit = [&](const float* values) {
    for (std::size_t v = 0; v < kChains; ++v) {
      const __m512 value = _mm512_loadu_ps(values + v * kLanes);
      low[v] = _mm512_min_ps(low[v], value);
      high[v] = _mm512_max_ps(high[v], value);
      check[v] = _mm512_fmadd_ps(value, zero, check[v]);
    }
  };
  for (std::size_t i = 0; i + kStep <= count; i += kStep) {
    visit(x + i);
  }
  visit(x + count - kStep);
  for (std::size_t v = 1; v < kChains; ++v) {
    low[0] = _mm512_min_ps(low[0], low[v]);
    high[0] = _mm512_max_ps(high[0], high[v]);
    check[0] = _mm512_add_ps(check[0], check[v]);
  }
  *min = _mm512_reduce_min_ps(low[0]);
  *max = _mm512_reduce_max_ps(high[0]);
  return _mm512_cmp_ps_mask(check[0], check[0], _CMP_UNORD_Q) == 0;
}

std::size_t histogram_bins(const float* x, std::size_t count, BinLayout layout,
                           std::uint16_t* bins) {
  const __m512 low = _mm512_set1_ps(layout.low);
  const __m512 high = _mm512_set1_ps(layout.high);
  const __m512 inverse_width = _mm512_set1_ps(layout.inverse_width);
  const __m512 zero = _mm512_setzero_ps();
  const __m512i zero_bin = _mm512_set1_epi32(layout.zero);
  const __m512i one = _mm512_set1_epi32(1);
  std::size_t written = 0;
  for (std::size_t i = 0; i < count; i += kLanes) {
    const auto lanes =
        static_cast<__mmask16>(count - i >= kLanes ? 0xFFFFU : 0xFFFFU >> (kLanes - (count - i)));
    const __m512 value =
        _mm512_min_ps(_mm512_max_ps(_mm512_maskz_loadu_ps(lanes, x + i), low), high);
    const __mmask16 used = _mm512_mask_cmp_ps_mask(lanes, value, zero, _CMP_NEQ_UQ);
    const __mmask16 negative = _mm512_cmp_ps_mask(value, zero, _CMP_LT_OQ);
    const __m512i distance = _mm512_cvttps_epi32(_mm512_mul_ps(value, inverse_width));
    const __m512i upward = _mm512_add_epi32(distance, zero_bin);
    const __m512i bin = _mm512_mask_sub_epi32(upward, negative, upward, one);
    const __m256i words = _mm512_cvtepi32_epi16(_mm512_maskz_compress_epi32(used, bin));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(bins + written), words);
    written += static_cast<std::size_t>(__builtin_popcount(used));
  }
  return written;
}

}  // namespace pyquant::avx512_vnni
