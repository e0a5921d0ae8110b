// The end of a tile of accumulators: scaled, rounded, packed and stored. Everything here has
// internal linkage: neon_dotprod compiles it with instructions that not every CPU has.
#pragma once

#include <arm_neon.h>

#include "kernels/kernel_table.h"

#define PYQUANT_INLINE inline __attribute__((always_inline))

namespace pyquant::neon {
namespace {

constexpr std::size_t kVectorChannels = 4;
constexpr std::size_t kBlockVectors = 4;
constexpr std::size_t kBlockChannels = kVectorChannels * kBlockVectors;

PYQUANT_INLINE void store_bytes(std::uint8_t* y, uint8x16_t bytes, std::size_t count) {
  if (count == 16) {
    vst1q_u8(y, bytes);
    return;
  }
  std::uint8_t all[16];
  vst1q_u8(all, bytes);
  for (std::size_t i = 0; i < count; ++i) {
    y[i] = all[i];
  }
}

// Accumulators to uint8. Sums that fit int32 after scaling saturate in each of the narrowings, so
// that only the given bounds are left to clamp to.
struct Packer {
  const float* multipliers;
  int16x8_t zero_point;
  uint8x16_t low, high;

  PYQUANT_INLINE Packer(const OutputStage& output, const float* scales)
      : multipliers(scales),
        zero_point(vdupq_n_s16(static_cast<std::int16_t>(output.range.zero_point))),
        low(vdupq_n_u8(static_cast<std::uint8_t>(output.range.low))),
        high(vdupq_n_u8(static_cast<std::uint8_t>(output.range.high))) {}

  PYQUANT_INLINE int16x4_t round(int32x4_t accumulator, std::size_t vector) const {
    return vqmovn_s32(vcvtnq_s32_f32(
        vmulq_f32(vcvtq_f32_s32(accumulator), vld1q_f32(multipliers + kVectorChannels * vector))));
  }

  // A pixel of kVectors vectors; what lies beyond them is unspecified.
  template <std::size_t kVectors>
  PYQUANT_INLINE uint8x16_t bytes(const int32x4_t* sums) const {
    int16x4_t words[kBlockVectors];
#pragma GCC unroll 4
    for (std::size_t vector = 0; vector < kBlockVectors; ++vector) {
      words[vector] = vector < kVectors ? round(sums[vector], vector) : words[0];
    }
    const int16x8_t first = vqaddq_s16(vcombine_s16(words[0], words[1]), zero_point);
    const int16x8_t second = vqaddq_s16(vcombine_s16(words[2], words[3]), zero_point);
    const uint8x16_t packed = vcombine_u8(vqmovun_s16(first), vqmovun_s16(second));
    return vminq_u8(vmaxq_u8(packed, low), high);
  }
};

}  // namespace
}  // namespace pyquant::neon
