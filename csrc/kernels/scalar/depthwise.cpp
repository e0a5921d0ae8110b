#include "kernels/scalar/sums.h"

namespace pyquant::scalar {
namespace {

constexpr std::size_t kLanes = Sums<kDepthwiseVectors>::kLanes;
constexpr std::size_t kRows = kStepInputs;  // that are interleaved

}  // namespace

void interleave(const std::uint8_t* const* rows, std::size_t groups, std::size_t channels,
                std::size_t pixel_stride, std::size_t strips, std::size_t strip_stride,
                std::size_t count, std::uint8_t* columns) {
  for (std::size_t column = 0; column < count; ++column) {
    for (std::size_t group = 0; group < groups; ++group, columns += kRows * kLanes) {
      for (std::size_t row = 0; row < kRows; ++row) {
        const std::uint8_t* pixel = rows[kRows * group + row] + column * pixel_stride;
        for (std::size_t strip = 0; strip < strips; ++strip, pixel += strip_stride) {
          for (std::size_t channel = 0; channel < channels; ++channel) {
            columns[kRows * (strip * kLanes / strips + channel) + row] = pixel[channel];
          }
        }
      }
    }
  }
}

void convolve_depthwise(const DepthwiseBlock& block, const std::uint8_t* columns,
                        std::size_t pixels, std::size_t row_count, void* y) {
  const std::size_t size = block.output.kind == OutputStage::Kind::kFloat ? sizeof(float) : 1;
  const std::size_t column_bytes = kRows * kLanes * block.groups;
  for (std::size_t pixel = 0; pixel < pixels; ++pixel) {
    for (std::size_t row = 0; row < row_count; ++row) {
      Sums<kDepthwiseVectors> sums(block.offsets);
      const std::int8_t* weights = block.weights + row * kRows * kLanes;
      for (std::size_t group = 0; group < block.groups; ++group) {
        const std::uint8_t* column = columns + group * kRows * kLanes;
        for (std::size_t tap = 0; tap < block.taps; ++tap) {
          sums.add([&](std::size_t lane, std::size_t i) {
            return column[kRows * lane + i] * weights[kRows * lane + i];
          });
          weights += block.rows * kRows * kLanes;
          column += block.tap_columns * column_bytes;
        }
      }
      std::int32_t values[kLanes];
      sums.get(values);
      const std::size_t lanes = kLanes / block.strips;
      for (std::size_t strip = 0; strip < block.strips; ++strip) {
        const std::size_t output =
            pixel * block.pixel_stride + row * block.row_stride + strip * block.strip_stride;
        // The lanes are in the order of the channels.
        store_pixel(block.output, values + strip * lanes, block.multipliers + strip * lanes,
                    lanes / kVectorChannels, kVectorChannels, block.channels,
                    static_cast<char*>(y) + output * size);
      }
    }
    columns += block.stride_columns * column_bytes;
  }
}

}  // namespace pyquant::scalar
