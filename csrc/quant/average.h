// How average pooling counts and scales, once for all engines.
#pragma once

#include <algorithm>
#include <cstdint>

#include "pyquant/operator.h"

namespace pyquant {

// s_x / (s_y * count), each step rounded to float32.
inline float average_multiplier(float input_scale, float output_scale, std::int64_t count) {
  return input_scale / (output_scale * static_cast<float>(count));
}

// The divisor of the window whose first pixel is (top, left), which may lie in the padding.
inline std::int64_t average_count(const AvgPool2d& pool, const Shape& x, std::int64_t top,
                                  std::int64_t left) {
  if (pool.divisor_override > 0) {
    return pool.divisor_override;
  }
  const Window& window = pool.window;
  const std::int64_t border = pool.count_include_pad ? 1 : 0;
  const std::int64_t bottom = std::min(top + window.kernel_h, x[1] + border * window.pad_bottom);
  const std::int64_t right = std::min(left + window.kernel_w, x[2] + border * window.pad_right);
  return (bottom - (border != 0 ? top : std::max<std::int64_t>(top, 0))) *
         (right - (border != 0 ? left : std::max<std::int64_t>(left, 0)));
}

// The input rows of output row `index` in adaptive pooling, of averages or maxima: [begin, end).
inline std::int64_t adaptive_begin(std::int64_t index, std::int64_t size, std::int64_t outputs) {
  return index * size / outputs;
}
inline std::int64_t adaptive_end(std::int64_t index, std::int64_t size, std::int64_t outputs) {
  return ((index + 1) * size + outputs - 1) / outputs;
}

}  // namespace pyquant
