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

void fake_quantize(std::span<const float> x, GridParams params, const Grid& grid, float* y) {
  kernel_table().fake_quantize(x.data(), x.size(), rounding_grid(params, grid), y);
}

float fake_quantize_backward(std::span<const float> x, const float* dy, GridParams params,
                             const Grid& grid, float* dx) {
  return kernel_table().fake_quantize_backward(x.data(), dy, x.size(), rounding_grid(params, grid),
                                               dx);
}

}  // namespace pyquant
