#include "quant/grid.h"

#include <algorithm>
#include <cmath>

namespace pyquant {
namespace {

constexpr float kSmallestScale = 1.1920929e-7F;  // 2^-23

}  // namespace

GridParams choose_qparams(float low, float high, const Grid& grid) {
  low = std::min(low, 0.0F);
  high = std::max(high, 0.0F);
  const auto steps = static_cast<float>(grid.max - grid.min);
  float scale = grid.symmetric ? std::max(-low, high) / (steps / 2.0F) : (high - low) / steps;
  if (std::isinf(scale)) {  // the difference has left float32
    scale = high / steps - low / steps;
  }
  scale = low == high ? 1.0F : std::max(scale, kSmallestScale);
  if (grid.symmetric) {
    return {scale, grid.min < 0 ? 0 : (grid.min + grid.max) / 2};
  }
  const auto below = static_cast<std::int32_t>(std::nearbyint(low / scale));
  return {scale, std::clamp(grid.min - below, grid.min, grid.max)};
}

}  // namespace pyquant
