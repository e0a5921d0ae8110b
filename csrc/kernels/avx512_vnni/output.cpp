#include "kernels/avx512_vnni/output.h"

namespace pyquant::avx512_vnni {

void store_pixel(const OutputStage& output, const std::int32_t* accumulators,
                 const float* multipliers, std::size_t vectors, std::size_t channels, void* y) {
  const std::int32_t zero_point = output.range.zero_point;
  const __m128 min = _mm_set1_ps(static_cast<float>(output.range.low - zero_point));
  const __m128 max = _mm_set1_ps(static_cast<float>(output.range.high - zero_point));
  for (std::size_t i = 0; i < kVectorChannels * vectors; i += 4) {
    const std::size_t channel = lane_channel(vectors, i / kVectorChannels, i % kVectorChannels);
    if (channel >= channels) {
      continue;
    }
    const std::size_t left = channels - channel;
    const auto mask = static_cast<__mmask8>(left >= 4 ? 15 : (1 << left) - 1);
    const __m128i sums = _mm_loadu_si128(reinterpret_cast<const __m128i*>(accumulators + i));
    const __m128 scaled = _mm_mul_ps(_mm_cvtepi32_ps(sums), _mm_loadu_ps(multipliers + i));
    if (output.kind == OutputStage::Kind::kFloat) {
      _mm_mask_storeu_ps(static_cast<float*>(y) + channel, mask, scaled);
    } else {
      // In this order of operands NaN becomes min, as in round_to_uint8.
      const __m128 clamped = _mm_min_ps(_mm_max_ps(scaled, min), max);
      const __m128i rounded = _mm_add_epi32(_mm_cvtps_epi32(clamped), _mm_set1_epi32(zero_point));
      _mm_mask_cvtepi32_storeu_epi8(static_cast<std::uint8_t*>(y) + channel, mask, rounded);
    }
  }
}

}  // namespace pyquant::avx512_vnni
