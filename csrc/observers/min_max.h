// The smallest and the largest value of a tensor.
#pragma once

#include <limits>
#include <span>

#include "pyquant/error.h"

namespace pyquant {

// low <= high; values outside are taken as these.
struct Interval {
  float low = -std::numeric_limits<float>::infinity();
  float high = std::numeric_limits<float>::infinity();
};

// Of no values: min is infinity and max is -infinity.
struct Extremes {
  float min = std::numeric_limits<float>::infinity();
  float max = -std::numeric_limits<float>::infinity();

  bool empty() const { return min > max; }
  void add(const Extremes& other);
};

// Of the values, clamped to the interval. Throws NotFiniteError if one is NaN or infinite.
Extremes min_max(std::span<const float> values, Interval interval);

// An observed value is NaN or infinite.
class NotFiniteError : public InvalidInputError {
 public:
  NotFiniteError() : InvalidInputError("an observer was given NaN or infinite values") {}
};

}  // namespace pyquant
