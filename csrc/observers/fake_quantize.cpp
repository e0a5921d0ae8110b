#include "observers/fake_quantize.h"

#include "kernels/kernel_table.h"
#include "quant/requantize.h"

namespace pyquant {
namespace {

RoundingGrid rounding_grid(GridParams params, const Grid& grid) {
  return {inverse_of(params.scale), params.scale, static_cast<float>(grid.min - params.zero_point),
          static_cast<float>(grid.max - params.zero_point)};
}

}  // namespace

void fake_quantize(std::span<const float> x, GridParams params, const Grid& grid, float* y,
                   std::uint8_t* passed) {
  kernel_table().fake_quantize(x.data(), x.size(), rounding_grid(params, grid), y, passed);
}

void pass_gradient(std::span<const float> dy, const std::uint8_t* passed, float* dx) {
  kernel_table().pass_gradient(dy.data(), passed, dy.size(), dx);
}

float fake_quantize_backward(std::span<const float> x, const float* dy, GridParams params,
                             const Grid& grid, float* dx) {
  return kernel_table().fake_quantize_backward(x.data(), dy, x.size(), rounding_grid(params, grid),
                                               dx);
}

}  // namespace pyquant
