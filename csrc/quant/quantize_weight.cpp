#include "pyquant/quantize_weight.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "pyquant/error.h"

namespace pyquant {
namespace {

constexpr float kWeightMax = 127.0F;
// What is left of int32 for the bias when the products have taken their share.
constexpr float kBiasMax = 1073741824.0F;  // 2^30
// The smallest scale of torch's observers.
constexpr float kSmallestScale = 1.1920929e-7F;  // 2^-23

// Scales tried, in units of max |w| / 127. Many weights average their errors out: fewer tries do.
struct Tries {
  float first, last;
  int count;
};
constexpr Tries kTriesFewWeights = {0.99F, 1.2F, 64};
constexpr Tries kTriesManyWeights = {0.99F, 1.05F, 16};
constexpr std::size_t kFewWeights = 128;

// sum((row - quantized(row))^2). Sums in lanes, which the compiler can keep in a vector.
float squared_error(std::span<const float> row, float scale) {
  constexpr std::size_t kLanes = 16;
  // Adding and subtracting 1.5 * 2^23 rounds to an integer, half to even.
  constexpr float kRound = 12582912.0F;
  const float inverse = 1.0F / scale;
  const auto error = [&](float value) {
    const float steps = value * inverse;
    const float rounded = (steps + kRound) - kRound;
    const float clamped = std::min(std::max(rounded, -kWeightMax), kWeightMax);
    return (clamped - steps) * (clamped - steps);
  };
  float sums[kLanes] = {};
  std::size_t i = 0;
  for (; i + kLanes <= row.size(); i += kLanes) {
    for (std::size_t lane = 0; lane < kLanes; ++lane) {
      sums[lane] += error(row[i + lane]);
    }
  }
  float sum = 0.0F;
  for (; i < row.size(); ++i) {
    sum += error(row[i]);
  }
  for (const float lane : sums) {
    sum += lane;
  }
  return sum * scale * scale;
}

float least_squares_scale(std::span<const float> row, float unit) {
  const Tries& tries = row.size() <= kFewWeights ? kTriesFewWeights : kTriesManyWeights;
  const float step = (tries.last - tries.first) / static_cast<float>(tries.count - 1);
  float best = unit;
  float best_error = squared_error(row, unit);
  for (int i = 0; i < tries.count; ++i) {
    const float scale = unit * (tries.first + step * static_cast<float>(i));
    const float error = squared_error(row, scale);
    if (error < best_error) {
      best_error = error;
      best = scale;
    }
  }
  return best;
}

std::size_t per_channel(std::size_t weights, std::size_t channels) {
  if (channels == 0 || weights == 0 || weights % channels != 0) {
    throw InvalidInputError(std::to_string(weights) + " weights do not divide among " +
                            std::to_string(channels) + " output channels");
  }
  return weights / channels;
}

}  // namespace

void fold_batch_norm(const BatchNorm& norm, std::span<float> weight, std::span<float> bias) {
  const std::size_t channels = bias.size();
  const std::size_t count = per_channel(weight.size(), channels);
  if (norm.mean.size() != channels || norm.variance.size() != channels ||
      norm.gamma.size() != channels || norm.beta.size() != channels) {
    throw InvalidInputError("the BatchNorm does not have " + std::to_string(channels) +
                            " channels");
  }
  for (std::size_t channel = 0; channel < channels; ++channel) {
    const float factor = norm.gamma[channel] / std::sqrt(norm.variance[channel] + norm.epsilon);
    for (float& value : weight.subspan(channel * count, count)) {
      value *= factor;
    }
    bias[channel] = (bias[channel] - norm.mean[channel]) * factor + norm.beta[channel];
  }
}

std::vector<float> least_squares_scales(std::span<const float> weight, std::size_t channels) {
  const std::size_t count = per_channel(weight.size(), channels);
  std::vector<float> scales(channels);
  for (std::size_t channel = 0; channel < channels; ++channel) {
    const std::span<const float> row = weight.subspan(channel * count, count);
    float largest = 0.0F;
    for (const float value : row) {
      // A comparison with NaN is false, so look for it.
      if (!std::isfinite(value)) {
        throw InvalidInputError("output channel " + std::to_string(channel) +
                                " has a NaN or infinite weight");
      }
      largest = std::max(largest, std::abs(value));
    }
    if (largest != 0.0F) {
      scales[channel] = least_squares_scale(row, std::max(largest / kWeightMax, kSmallestScale));
    }
  }
  const float largest_scale = *std::ranges::max_element(scales);
  std::ranges::replace(scales, 0.0F, largest_scale == 0.0F ? 1.0F : largest_scale);
  return scales;
}

QuantizedWeight quantize_weight(std::span<const float> weight, std::span<const float> bias,
                                float input_scale) {
  const std::size_t channels = bias.size();
  const std::size_t count = per_channel(weight.size(), channels);
  QuantizedWeight result;
  result.scales = least_squares_scales(weight, channels);
  result.values.resize(weight.size());
  result.bias.resize(channels);
  for (std::size_t channel = 0; channel < channels; ++channel) {
    if (!std::isfinite(bias[channel])) {
      throw InvalidInputError("output channel " + std::to_string(channel) +
                              " has a NaN or infinite bias");
    }
    float& scale = result.scales[channel];
    scale = std::max(scale, std::abs(bias[channel]) / (input_scale * kBiasMax));
    const float inverse = 1.0F / scale;
    for (std::size_t i = channel * count; i < (channel + 1) * count; ++i) {
      result.values[i] = static_cast<std::int8_t>(
          std::clamp(std::nearbyint(weight[i] * inverse), -kWeightMax, kWeightMax));
    }
    result.bias[channel] =
        static_cast<std::int32_t>(std::nearbyint(bias[channel] / (input_scale * scale)));
  }
  return result;
}

}  // namespace pyquant
