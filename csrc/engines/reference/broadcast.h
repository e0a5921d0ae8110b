// Which element of an input whose dimensions of 1 are repeated belongs to an output.
#pragma once

#include <cstdint>

#include "pyquant/tensor.h"

namespace pyquant::reference {

// The element of an `operand` of the output's rank that belongs to element `index` of the output.
inline std::int64_t broadcast_index(std::int64_t index, const Shape& output, const Shape& operand) {
  std::int64_t result = 0;
  std::int64_t stride = 1;
  for (std::size_t axis = output.rank(); axis-- > 0;) {
    const std::int64_t position = index % output[axis];
    index /= output[axis];
    result += operand[axis] == 1 ? 0 : position * stride;
    stride *= operand[axis];
  }
  return result;
}

}  // namespace pyquant::reference
