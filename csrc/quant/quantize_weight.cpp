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

QuantizedWeight quantize_weight(std::span<const float> weight, std::span<const float> bias,
                                float input_scale) {
  const std::size_t channels = bias.size();
  const std::size_t count = per_channel(weight.size(), channels);
  QuantizedWeight result;
  result.values.resize(weight.size());
  result.scales.resize(channels);
  result.bias.resize(channels);
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
    if (!std::isfinite(bias[channel])) {
      throw InvalidInputError("output channel " + std::to_string(channel) +
                              " has a NaN or infinite bias");
    }
    const float scale =
        std::max({largest / kWeightMax, kSmallestScale,
                  std::abs(bias[channel]) / (input_scale * kBiasMax)});
    const float inverse = 1.0F / scale;
    for (std::size_t i = 0; i < count; ++i) {
      result.values[channel * count + i] = static_cast<std::int8_t>(
          std::clamp(std::nearbyint(row[i] * inverse), -kWeightMax, kWeightMax));
    }
    result.scales[channel] = scale;
    result.bias[channel] =
        static_cast<std::int32_t>(std::nearbyint(bias[channel] / (input_scale * scale)));
  }
  return result;
}

}  // namespace pyquant
