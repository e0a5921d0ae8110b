#include "observers/min_max.h"

#include <algorithm>

#include "kernels/kernel_table.h"

namespace pyquant {

void Extremes::add(const Extremes& other) {
  min = std::min(min, other.min);
  max = std::max(max, other.max);
}

Extremes min_max(std::span<const float> values, Interval interval) {
  Extremes found;
  if (values.empty()) {
    return found;
  }
  if (!kernel_table().min_max(values.data(), values.size(), &found.min, &found.max)) {
    throw NotFiniteError();
  }
  return {std::clamp(found.min, interval.low, interval.high),
          std::clamp(found.max, interval.low, interval.high)};
}

}  // namespace pyquant
