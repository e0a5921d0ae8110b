// Quantization in training: values are rounded to the grid that they will have, and gradients pass
// the rounding as if it were the identity (the straight-through estimator: Bengio, Léonard and
// Courville, "Estimating or Propagating Gradients Through Stochastic Neurons", 2013).
#pragma once

#include <span>

#include "quant/grid.h"

namespace pyquant {

// y = (q - zero_point) * scale with q = clamp(rne(x * (1 / scale)) + zero_point, grid.min,
// grid.max), to the bit what quantizing and dequantizing gives. NaN stays NaN. y has room for as
// many values as x and may be x itself.
void fake_quantize(std::span<const float> x, GridParams params, const Grid& grid, float* y);

// The gradients of fake_quantize: dx = dy where q was not clamped, else 0. Returns that of the
// scale, the sum of dy * (q - zero_point - x / scale) where q was not clamped and of dy *
// (q - zero_point) where it was: Esser et al., "Learned Step Size Quantization", 2020, eq. 3. dy
// and dx hold as many values as x; dx may be dy.
float fake_quantize_backward(std::span<const float> x, const float* dy, GridParams params,
                             const Grid& grid, float* dx);

}  // namespace pyquant
