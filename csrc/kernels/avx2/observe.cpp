#include <immintrin.h>

#include "kernels/avx2/kernels.h"
#include "kernels/scalar/kernels.h"

namespace pyquant::avx2 {
namespace {

constexpr std::size_t kLanes = 8;
constexpr std::size_t kChains = 4;  // of operations that wait for each other

// For each set of lanes the byte shuffle that moves their words to the front.
struct Compressions {
  alignas(16) std::uint8_t bytes[256][16];
};

constexpr Compressions compressions() {
  Compressions all{};
  for (unsigned mask = 0; mask < 256; ++mask) {
    std::size_t written = 0;
    for (unsigned lane = 0; lane < kLanes; ++lane) {
      if ((mask >> lane & 1U) != 0) {
        all.bytes[mask][written++] = static_cast<std::uint8_t>(2 * lane);
        all.bytes[mask][written++] = static_cast<std::uint8_t>(2 * lane + 1);
      }
    }
  }
  return all;
}

constexpr Compressions kCompressions = compressions();

}  // namespace

bool min_max(const float* x, std::size_t count, float* min, float* max) {
  constexpr std::size_t kStep = kChains * kLanes;
  if (count < kStep) {
    return scalar::min_max(x, count, min, max);
  }
  const __m256 zero = _mm256_setzero_ps();
  __m256 low[kChains], high[kChains], check[kChains];
  for (std::size_t v = 0; v < kChains; ++v) {
    low[v] = high[v] = _mm256_loadu_ps(x + v * kLanes);
    check[v] = zero;
  }
  const auto visit = [&](const float* values) {
    for (std::size_t v = 0; v < kChains; ++v) {
      const __m256 value = _mm256_loadu_ps(values + v * kLanes);
      low[v] = _mm256_min_ps(low[v], value);
      high[v] = _mm256_max_ps(high[v], value);
      check[v] = _mm256_add_ps(check[v], _mm256_mul_ps(value, zero));
    }
  };
  for (std::size_t i = 0; i + kStep <= count; i += kStep) {
    visit(x + i);
  }
  visit(x + count - kStep);
  for (std::size_t v = 1; v < kChains; ++v) {
    low[0] = _mm256_min_ps(low[0], low[v]);
    high[0] = _mm256_max_ps(high[0], high[v]);
    check[0] = _mm256_add_ps(check[0], check[v]);
  }
  float lanes[3 * kLanes];
  _mm256_storeu_ps(lanes, low[0]);
  _mm256_storeu_ps(lanes + kLanes, high[0]);
  _mm256_storeu_ps(lanes + 2 * kLanes, check[0]);
  float ignored = 0.0F;
  const bool finite = scalar::min_max(lanes + 2 * kLanes, kLanes, &ignored, &ignored);
  return scalar::min_max(lanes, kLanes, min, &ignored) &&
         scalar::min_max(lanes + kLanes, kLanes, &ignored, max) && finite;
}

std::size_t histogram_bins(const float* x, std::size_t count, BinLayout layout,
                           std::uint16_t* bins) {
  const __m256 low = _mm256_set1_ps(layout.low);
  const __m256 high = _mm256_set1_ps(layout.high);
  const __m256 inverse_width = _mm256_set1_ps(layout.inverse_width);
  const __m256 zero = _mm256_setzero_ps();
  const __m256i zero_bin = _mm256_set1_epi32(layout.zero);
  std::size_t written = 0;
  std::size_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    const __m256 value = _mm256_min_ps(_mm256_max_ps(_mm256_loadu_ps(x + i), low), high);
    const __m256i distance = _mm256_cvttps_epi32(_mm256_mul_ps(value, inverse_width));
    // A comparison that holds is -1.
    const __m256i negative = _mm256_castps_si256(_mm256_cmp_ps(value, zero, _CMP_LT_OQ));
    const __m256i bin = _mm256_add_epi32(_mm256_add_epi32(distance, negative), zero_bin);
    const __m128i words =
        _mm_packus_epi32(_mm256_castsi256_si128(bin), _mm256_extracti128_si256(bin, 1));
    const int mask = _mm256_movemask_ps(_mm256_cmp_ps(value, zero, _CMP_NEQ_UQ));
    const __m128i order =
        _mm_load_si128(reinterpret_cast<const __m128i*>(kCompressions.bytes[mask]));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(bins + written), _mm_shuffle_epi8(words, order));
    written += static_cast<std::size_t>(__builtin_popcount(static_cast<unsigned>(mask)));
  }
  return written + scalar::histogram_bins(x + i, count - i, layout, bins + written);
}

}  // namespace pyquant::avx2
