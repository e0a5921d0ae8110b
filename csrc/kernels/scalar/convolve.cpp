#include "kernels/scalar/sums.h"

namespace pyquant::scalar {
namespace {

template <std::size_t kVectors>
void convolve_pixel(const ConvLayout& layout, const ConvBlock& block, const std::uint8_t* x,
                    void* y) {
  Sums<kVectors> sums(block.offsets);
  const std::int8_t* weights = block.weights;
  for (std::size_t tap = 0; tap < layout.tap_count; ++tap) {
    const std::uint8_t* inputs = x + layout.taps[tap];
    for (std::size_t step = 0; step < layout.steps; ++step) {
      sums.add([&](std::size_t lane, std::size_t i) {
        return inputs[i] * weights[kStepInputs * lane + i];
      });
      inputs += kStepInputs;
      weights += kStepInputs * sums.kLanes;
    }
  }
  if (layout.output.kind == OutputStage::Kind::kInt32) {
    sums.get(static_cast<std::int32_t*>(y));
    return;
  }
  std::int32_t values[sums.kLanes];
  sums.get(values);
  store_pixel(layout.output, values, block.multipliers, kVectors, kVectorChannels, block.channels,
              y);
}

constexpr decltype(&convolve_pixel<1>) kFunctions[] = {convolve_pixel<1>, convolve_pixel<2>,
                                                       convolve_pixel<3>, convolve_pixel<4>};

}  // namespace

void convolve_block(const ConvLayout& layout, ConvBlock& block, std::size_t rows,
                    std::size_t pixels) {
  const std::uint8_t* x = block.x;
  void* y = block.y;
  const std::size_t size = layout.output.output_bytes();
  for (; rows != 0; --rows, x += layout.row_stride) {
    const std::uint8_t* inputs = x;
    for (std::size_t pixel = 0; pixel < pixels; ++pixel, inputs += layout.pixel_stride) {
      kFunctions[block.vectors - 1](layout, block, inputs, y);
      y = static_cast<char*>(y) + layout.output_stride * size;
    }
  }
}

}  // namespace pyquant::scalar
