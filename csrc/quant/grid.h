// From a range of real numbers to the scale and zero point of an integer grid.
#pragma once

#include <cstdint>

namespace pyquant {

// The integers min..max, min <= 0 <= max or unsigned, and how they are placed.
struct Grid {
  std::int32_t min, max;
  bool symmetric;  // 0 is the middle integer, rounded down (signed: 0); else any may be
};

struct GridParams {
  float scale;
  std::int32_t zero_point;
};

// Scale and zero point such that the grid covers low..high and 0, which is always on the grid: the
// float32 arithmetic of torchao's UniformQuantizationObserverBase._calculate_qparams, with its
// smallest scale of 2^-23. A range of nothing but 0 has the scale 1, so that what is computed from
// the scale stays of sane size. low and high are finite; so is the scale.
GridParams choose_qparams(float low, float high, const Grid& grid);

}  // namespace pyquant
