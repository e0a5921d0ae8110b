// What every engine that requantizes Conv2d and Linear in float32 needs to know of an operator.
#pragma once

#include <span>
#include <vector>

#include "pyquant/operator.h"

namespace pyquant {

// The factor from accumulator to output per output channel: requantize_multiplier() for a uint8
// output, s_x * s_w for a float32 one.
std::vector<float> output_multipliers(const Operator& op);

// True if float(accumulator) * multiplier is within int32 for all inputs. x86 converts what is
// beyond to the smallest int32, so that a huge positive output would become output_min.
bool scaled_accumulators_fit_int32(const Operator& op, std::span<const float> multipliers);

}  // namespace pyquant
