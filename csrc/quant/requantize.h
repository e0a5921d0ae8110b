// The rounding rule, once: how an int32 accumulator becomes a uint8 output.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace pyquant {

// m = (s_x * s_w) / s_y, each step rounded to float32: what QNNPACK and XNNPACK compute, so that
// phones give the same numbers.
inline float requantize_multiplier(float input_scale, float weight_scale, float output_scale) {
  return (input_scale * weight_scale) / output_scale;
}

// 1 / scale as PT2E's quantize_per_tensor takes it: divided in double, then rounded to float32.
inline float inverse_of(float scale) {
  return static_cast<float>(1.0 / static_cast<double>(scale));
}

// rne(value) + zero_point, clamped to [low, high]. Clamping first keeps values beyond int32 (and
// infinities) well defined; NaN becomes low.
inline std::uint8_t round_to_uint8(float value, std::int32_t zero_point, std::int32_t low,
                                   std::int32_t high) {
  const auto min = static_cast<float>(low - zero_point);
  const auto max = static_cast<float>(high - zero_point);
  const float clamped = value > min ? std::min(value, max) : min;
  return static_cast<std::uint8_t>(static_cast<std::int32_t>(std::nearbyint(clamped)) + zero_point);
}

inline std::uint8_t requantize(std::int32_t accumulator, float multiplier, std::int32_t zero_point,
                               std::int32_t low, std::int32_t high) {
  return round_to_uint8(static_cast<float>(accumulator) * multiplier, zero_point, low, high);
}

}  // namespace pyquant
