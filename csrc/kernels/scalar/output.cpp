#include "kernels/scalar/kernels.h"
#include "kernels/scalar/rounding.h"

namespace pyquant::scalar {

void store_pixel(const OutputStage& output, const std::int32_t* accumulators,
                 const float* multipliers, std::size_t vectors, std::size_t vector_channels,
                 std::size_t channels, void* y) {
  for (std::size_t i = 0; i < vectors * vector_channels; ++i) {
    const std::size_t channel = lane_channel(vectors, i / vector_channels, i % vector_channels);
    if (channel >= channels) {
      continue;
    }
    const float scaled = static_cast<float>(accumulators[i]) * multipliers[i];
    if (output.kind == OutputStage::Kind::kFloat) {
      static_cast<float*>(y)[channel] = scaled;
    } else {
      static_cast<std::uint8_t*>(y)[channel] = to_uint8(scaled, output.range);
    }
  }
}

}  // namespace pyquant::scalar
