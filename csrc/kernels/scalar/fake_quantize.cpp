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

void fake_quantize(const float* x, std::size_t count, RoundingGrid grid, float* y) {
  for (std::size_t i = 0; i < count; ++i) {
    y[i] = std::nearbyint(clamped(x[i] * grid.inverse_scale, grid)) * grid.scale;
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
