// The constants of a Conv2d or Linear in QNNPACK's form.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "pyquant/operator.h"

namespace pyquant::qnnpack_engine {

// Why QNNPACK cannot requantize the accumulators of a Conv2d or Linear; empty if it can.
std::string why_not_requantizable(const Operator& op);

struct Weights {
  explicit Weights(const Operator& op);

  std::vector<std::uint8_t> kernel;  // weight + 128
  std::vector<std::int32_t> bias;
  std::vector<std::uint8_t> zero_points;     // 128, kReadBeyondChannels longer than the channels
  std::vector<float> requantization_scales;  // likewise
};

}  // namespace pyquant::qnnpack_engine
