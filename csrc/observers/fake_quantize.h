// Quantization in training: values are rounded to the grid that they will have, and gradients pass
// the rounding as if it were the identity (the straight-through estimator: Bengio, Léonard and
// Courville, "Estimating or Propagating Gradients Through Stochastic Neurons", 2013).
#pragma once

#include <cstdint>
#include <span>

#include "quant/grid.h"

namespace pyquant {

// y = (q - zero_point) * scale with q = clamp(rne(x * (1 / scale)) + zero_point, grid.min,
// grid.max), to the bit what quantizing and dequantizing gives. NaN stays NaN. y has room for as
// many values as x and may be x itself. Bit i % 8 of passed[i / 8] tells whether q of value i was
// not clamped; that of NaN is 0.
void fake_quantize(std::span<const float> x, GridParams params, const Grid& grid, float* y,
                   std::uint8_t* passed);

// The gradient of x: dx = dy where q was not clamped, else 0. `passed` is what fake_quantize wrote;
// dx has room for as many values as dy and may be dy itself.
void pass_gradient(std::span<const float> dy, const std::uint8_t* passed, float* dx);

// The gradients of x and of a scale that is learned. dx is as above. Returns the gradient of the
// scale, the sum of dy * (q - zero_point - x / scale) where q was not clamped and of dy *
// (q - zero_point) where it was: Esser et al., "Learned Step Size Quantization", 2020, eq. 3. dy
// and dx hold as many values as x; dx may be dy.
float fake_quantize_backward(std::span<const float> x, const float* dy, GridParams params,
                             const Grid& grid, float* dx);

}  // namespace pyquant
