#include "kernels/scalar/kernels.h"
#include "kernels/scalar/rounding.h"

namespace pyquant::scalar {

void quantize_planes(const float* x, std::ptrdiff_t plane, std::size_t channels, std::size_t pixels,
                     float inverse_scale, OutputRange range, std::uint8_t* y) {
  for (std::size_t c = 0; c < channels; ++c) {
    const float* row = x + static_cast<std::ptrdiff_t>(c) * plane;
    for (std::size_t p = 0; p < pixels; ++p) {
      y[p * channels + c] = to_uint8(row[p] * inverse_scale, range);
    }
  }
}

void dequantize_planes(const std::uint8_t* x, std::size_t channels, std::size_t pixels, float scale,
                       std::int32_t zero_point, std::ptrdiff_t plane, float* y) {
  for (std::size_t c = 0; c < channels; ++c) {
    float* row = y + static_cast<std::ptrdiff_t>(c) * plane;
    for (std::size_t p = 0; p < pixels; ++p) {
      row[p] = static_cast<float>(x[p * channels + c] - zero_point) * scale;
    }
  }
}

void requantize(const std::int32_t* sums, std::int32_t offset, float multiplier, std::size_t count,
                OutputRange range, std::uint8_t* y) {
  for (std::size_t i = 0; i < count; ++i) {
    y[i] = to_uint8(static_cast<float>(sums[i] - offset) * multiplier, range);
  }
}

}  // namespace pyquant::scalar
