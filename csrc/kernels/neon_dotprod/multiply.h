// Products of bytes. The dot product takes signed ones: inputs minus 128, for which the offsets
// make up (LaneGeometry::input_shift).
#pragma once

#include "kernels/neon/output.h"

namespace pyquant::neon_dotprod {
namespace {

struct MultiplyBytes {
  static PYQUANT_INLINE int8x16_t load_weights(const std::int8_t* weights) {
    return vld1q_s8(weights);
  }

  static PYQUANT_INLINE int8x16_t to_inputs(uint8x16_t bytes) {
    return vreinterpretq_s8_u8(veorq_u8(bytes, vdupq_n_u8(128)));
  }

  // sums += the products with the inputs of step kStep, the same for all lanes; see
  // neon/multiply.h.
  template <int kStep>
  static PYQUANT_INLINE void add_step(int32x4_t& sums, int8x16_t inputs, int8x16_t weights) {
    asm volatile("sdot %0.4s, %1.16b, %2.4b[%c3]"
                 : "+w"(sums)
                 : "w"(weights), "w"(inputs), "i"(kStep));
  }

  static PYQUANT_INLINE int8x16_t load_column(const std::uint8_t* column) {
    return to_inputs(vld1q_u8(column));
  }

  static PYQUANT_INLINE int32x4_t add(int32x4_t sums, int8x16_t x, int8x16_t weights) {
    return vdotq_s32(sums, x, weights);
  }
};

}  // namespace
}  // namespace pyquant::neon_dotprod
