#include "kernels/scalar/kernels.h"
#include "quant/requantize.h"

namespace pyquant::scalar {
namespace {

// Comparisons with NaN are false, so that it passes.
float clamped(float steps, RoundingGrid grid) {
  const float above = steps < grid.low ? grid.low : steps;
  return above > grid.high ? grid.high : above;
}

}  // namespace

void fake_quantize(const float* x, std::size_t count, RoundingGrid grid, float* y,
                   std::uint8_t* passed) {
  for (std::size_t begin = 0; begin < count; begin += 8) {
    unsigned bits = 0;
    for (std::size_t i = begin; i < std::min(begin + 8, count); ++i) {
      const float rounded = std::nearbyint(x[i] * grid.inverse_scale);
      const float k = clamped(rounded, grid);
      y[i] = k * grid.scale;
      bits |= static_cast<unsigned>(k == rounded) << (i - begin);
    }
    passed[begin / 8] = static_cast<std::uint8_t>(bits);
  }
}

void pass_gradient(const float* dy, const std::uint8_t* passed, std::size_t count, float* dx) {
  for (std::size_t i = 0; i < count; ++i) {
    dx[i] = (passed[i / 8] >> (i % 8) & 1U) != 0 ? dy[i] : 0.0F;
  }
}

float fake_quantize_backward(const float* x, const float* dy, std::size_t count, RoundingGrid grid,
                             float* dx) {
  float sum = 0.0F;
  for (std::size_t i = 0; i < count; ++i) {
    const float steps = x[i] * grid.inverse_scale;
    const float rounded = std::nearbyint(steps);
    const bool within = rounded >= grid.low && rounded <= grid.high;
    dx[i] = within ? dy[i] : 0.0F;
    sum += dy[i] * (clamped(rounded, grid) - (within ? steps : 0.0F));
  }
  return sum;
}

}  // namespace pyquant::scalar
