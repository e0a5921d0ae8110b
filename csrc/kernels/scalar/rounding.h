// The rounding rule of quant/requantize.h on an OutputRange.
#pragma once

#include "kernels/kernel_table.h"
#include "quant/requantize.h"

namespace pyquant::scalar {

inline std::uint8_t to_uint8(float value, const OutputRange& range) {
  return round_to_uint8(value, range.zero_point, range.low, range.high);
}

}  // namespace pyquant::scalar
