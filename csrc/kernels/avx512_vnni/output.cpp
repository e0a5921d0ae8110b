#include "kernels/avx512_vnni/output.h"

namespace pyquant::avx512_vnni {
namespace {

// Four neighbouring outputs that are uint8 already, as int32; other: where the other operands are.
__m128i apply_post_op(const OutputStage& output, __m128i values, __mmask8 mask,
                      const std::uint8_t* other) {
  if (output.post_op == OutputStage::PostOp::kTable) {
    alignas(16) std::int32_t indices[4];
    _mm_store_si128(reinterpret_cast<__m128i*>(indices), values);
    return _mm_setr_epi32(output.table[indices[0]], output.table[indices[1]],
                          output.table[indices[2]], output.table[indices[3]]);
  }
  const auto scaled = [](__m128i bytes, const AddOperand& operand) {
    const __m128i offset = _mm_sub_epi32(bytes, _mm_set1_epi32(operand.zero_point));
    return _mm_mul_ps(_mm_cvtepi32_ps(offset), _mm_set1_ps(operand.multiplier));
  };
  const ResidualAdd& add = output.add;
  const __m128i others = _mm_cvtepu8_epi32(_mm_maskz_loadu_epi8(mask, other));
  const __m128i sum =
      _mm_cvtps_epi32(_mm_add_ps(scaled(values, add.own), scaled(others, add.other)));
  return _mm_min_epi32(_mm_max_epi32(_mm_add_epi32(sum, _mm_set1_epi32(add.range.zero_point)),
                                     _mm_set1_epi32(add.range.low)),
                       _mm_set1_epi32(add.range.high));
}

}  // namespace

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
      __m128i rounded = _mm_add_epi32(_mm_cvtps_epi32(clamped), _mm_set1_epi32(zero_point));
      std::uint8_t* target = static_cast<std::uint8_t*>(y) + channel;
      if (output.post_op != OutputStage::PostOp::kNone) {
        rounded = apply_post_op(output, rounded, mask, target + output.add.distance);
      }
      _mm_mask_cvtepi32_storeu_epi8(target, mask, rounded);
    }
  }
}

}  // namespace pyquant::avx512_vnni
