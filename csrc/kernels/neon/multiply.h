// Products of words: without the dot product instructions, sums of bytes' products would need more
// instructions to stay exact.
#pragma once

#include "kernels/neon/output.h"

namespace pyquant::neon {
namespace {

struct MultiplyWords {
  // The two weights of each of 4 lanes: all first ones, and all second ones.
  static PYQUANT_INLINE int16x4x2_t load_weights(const std::int8_t* weights) {
    return vld2_s16(reinterpret_cast<const std::int16_t*>(weights));
  }

  // Words are below 256: signed or not is the same.
  static PYQUANT_INLINE int8x16_t to_inputs(uint8x16_t bytes) { return vreinterpretq_s8_u8(bytes); }

  // sums += the products with the inputs of step kStep, the same for all lanes. As inline assembly
  // because GCC 12 reorders the intrinsics until accumulators have to go to memory and back.
  template <int kStep>
  static PYQUANT_INLINE void add_step(int32x4_t& sums, int8x16_t inputs, int16x4x2_t weights) {
    asm volatile(
        "smlal %0.4s, %1.4h, %3.h[%c4]\n\t"
        "smlal %0.4s, %2.4h, %3.h[%c5]"
        : "+w"(sums)
        : "w"(weights.val[0]), "w"(weights.val[1]), "x"(inputs), "i"(2 * kStep),
          "i"(2 * kStep + 1));
  }

  // The two inputs of each of 4 lanes.
  static PYQUANT_INLINE int16x4x2_t load_column(const std::uint8_t* column) {
    return vld2_s16(reinterpret_cast<const std::int16_t*>(column));
  }

  static PYQUANT_INLINE int32x4_t add(int32x4_t sums, int16x4x2_t x, int16x4x2_t weights) {
    return vmlal_s16(vmlal_s16(sums, x.val[0], weights.val[0]), x.val[1], weights.val[1]);
  }
};

}  // namespace
}  // namespace pyquant::neon
