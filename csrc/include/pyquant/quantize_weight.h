// From float weights to what an int8 operator takes: BatchNorm folding and per-channel
// quantization. The functions touch nothing but their arguments, which the caller owns: any number
// of threads may call them for different data.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "pyquant/export.h"
#include "pyquant/qparams.h"

namespace pyquant {

// y = (x - mean) / sqrt(variance + epsilon) * gamma + beta, one of each per output channel.
struct BatchNorm {
  std::span<const float> mean, variance, gamma, beta;
  float epsilon = 1e-5F;
};

// Folds the BatchNorm that follows a convolution or linear layer into its weight [O, ...] and bias
// [O], in place. Throws InvalidInputError where the sizes do not fit.
PYQUANT_API void fold_batch_norm(const BatchNorm& norm, std::span<float> weight,
                                 std::span<float> bias);

// The symmetric scale of least squared error for each output channel of weight [O, ...], found by
// search: sum((w - q * scale)^2) over scales around max |w| / 127 (Choukroun et al., "Low-bit
// Quantization of Neural Networks for Efficient Inference", 2019, section 4.1, here per channel and
// also above the largest weight). Where the weights fall between two steps changes with the scale
// almost at random, so that the best of many is well below the mean: by 3 dB for the 9 weights of
// a depthwise channel, by 0.2 dB for 576. Channels of zeros get the largest scale of the others.
// Throws InvalidInputError for NaN or infinity, or where the sizes do not fit.
PYQUANT_API std::vector<float> least_squares_scales(std::span<const float> weight,
                                                    std::size_t channels);

struct QuantizedWeight {
  std::vector<std::int8_t> values;  // in the order of the float weight, -127..127
  std::vector<float> scales;        // one per output channel
  std::vector<std::int32_t> bias;   // at scale input_scale * scales[channel]
};

// Symmetric per-channel quantization of weight [O, ...], with least_squares_scales, and of its bias
// for an input of `input_scale`. A channel whose bias would leave int32 at that scale (its weights
// are almost zero) gets a larger scale, at which its weights matter as little. Throws
// InvalidInputError for NaN or infinity, or where the sizes do not fit.
PYQUANT_API QuantizedWeight quantize_weight(std::span<const float> weight,
                                            std::span<const float> bias, float input_scale);

}  // namespace pyquant
