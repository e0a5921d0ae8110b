#include "kernels/scalar/kernels.h"
#include "kernels/scalar/rounding.h"

namespace pyquant::scalar {

void blend(const std::uint8_t* const* pixels, const BlendWeights& weights,
           std::int32_t x_zero_point, float multiplier, std::size_t count, OutputRange range,
           std::uint8_t* y) {
  for (std::size_t i = 0; i < count; ++i) {
    const auto value = [&](std::size_t pixel) {
      return static_cast<float>(pixels[pixel][i] - x_zero_point);
    };
    const float upper = weights.left * value(0) + weights.right * value(1);
    const float lower = weights.left * value(2) + weights.right * value(3);
    y[i] = to_uint8((weights.upper * upper + weights.lower * lower) * multiplier, range);
  }
}

}  // namespace pyquant::scalar
