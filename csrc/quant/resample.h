// Which input pixels an output pixel of a resized image comes from, along one axis.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace pyquant {

// Input pixels per output pixel.
inline float resize_ratio(std::int64_t size, std::int64_t outputs, double scale) {
  if (size == outputs) {
    return 1.0F;
  }
  return scale != 0 ? static_cast<float>(1.0 / scale)
                    : static_cast<float>(size) / static_cast<float>(outputs);
}

inline std::int64_t nearest_pixel(std::int64_t index, float ratio, std::int64_t size) {
  return std::min(static_cast<std::int64_t>(std::floor(static_cast<float>(index) * ratio)),
                  size - 1);
}

// The ratio with which align_corners maps the first pixel to the first and the last to the last.
inline float corner_ratio(std::int64_t size, std::int64_t outputs) {
  return outputs > 1 ? static_cast<float>(size - 1) / static_cast<float>(outputs - 1) : 0.0F;
}

// An output pixel between two input pixels.
struct LinearTaps {
  std::int64_t first, second;
  float first_weight, second_weight;
};

inline LinearTaps linear_taps(std::int64_t index, std::int64_t size, std::int64_t outputs,
                              double scale, bool align_corners) {
  const float ratio =
      align_corners ? corner_ratio(size, outputs) : resize_ratio(size, outputs, scale);
  const float position = align_corners
                             ? ratio * static_cast<float>(index)
                             : std::max(ratio * (static_cast<float>(index) + 0.5F) - 0.5F, 0.0F);
  const std::int64_t first = std::min(static_cast<std::int64_t>(position), size - 1);
  const float weight = std::min(position - static_cast<float>(first), 1.0F);
  return {first, std::min(first + 1, size - 1), 1.0F - weight, weight};
}

}  // namespace pyquant
