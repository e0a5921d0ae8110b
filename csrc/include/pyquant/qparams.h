// Quantization parameters: x = (q - zero_point) * scale.
#pragma once

#include <cstdint>

namespace pyquant {

// Per-tensor affine parameters of a uint8 activation. scale is finite and positive,
// zero_point is within 0..255.
struct QParams {
  float scale = 1.0F;
  std::int32_t zero_point = 0;

  friend bool operator==(const QParams&, const QParams&) = default;
};

}  // namespace pyquant
