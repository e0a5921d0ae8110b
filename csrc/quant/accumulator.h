// How the int32 accumulators of a Conv2d or Linear become its outputs, once for all engines.
#pragma once

#include <cstdint>
#include <vector>

#include "pyquant/export.h"
#include "pyquant/operator.h"

namespace pyquant {

struct PYQUANT_ENGINE_API AccumulatorConstants {
  // op: a checked Conv2d or Linear.
  explicit AccumulatorConstants(const Operator& op);

  // bias - zero_point * sum(weights) per output channel. A kernel that multiplies the raw uint8
  // inputs adds these. Modulo 2^32: the sum with the raw accumulator fits int32 again.
  std::vector<std::int32_t> offsets;

  // The factor from accumulator to output per output channel: requantize_multiplier() for a uint8
  // output, s_x * s_w for a float32 one.
  std::vector<float> multipliers;

  // True if float(accumulator) * multiplier is within int32 for all inputs, with room for the
  // roundings. x86 converts what is beyond to the smallest int32, so that a huge positive output
  // would become output_min.
  bool scaled_fits_int32 = true;

  // No accumulator is larger in magnitude.
  std::int64_t largest_magnitude = 0;

  // Of a uint8 output.
  std::int32_t zero_point = 0, low = 0, high = 255;
};

}  // namespace pyquant
