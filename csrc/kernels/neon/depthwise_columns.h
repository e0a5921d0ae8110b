// Depthwise convolution over columns of interleaved rows (see DepthwiseBlock): one multiplication
// sums some rows of the kernel in one column, for 4 channels. What is multiplied is Multiply's to
// say, so that neon and neon_dotprod share this; all has internal linkage.
#pragma once

#include "kernels/neon/output.h"
#include "kernels/scalar/kernels.h"

namespace pyquant::neon {
namespace {

constexpr std::size_t kColumnGroupBytes = 4 * kBlockChannels;

// The channels of a pixel of each strip; the others are zero.
PYQUANT_INLINE uint8x16_t load_strips(const std::uint8_t* x, std::size_t channels,
                                      std::size_t strips, std::size_t stride) {
  if (channels == kBlockChannels) {
    return vld1q_u8(x);
  }
  std::uint8_t bytes[kBlockChannels] = {};
  for (std::size_t strip = 0; strip < strips; ++strip) {
    for (std::size_t i = 0; i < channels; ++i) {
      bytes[strip * kBlockChannels / strips + i] = x[strip * stride + i];
    }
  }
  return vld1q_u8(bytes);
}

// The table's `interleave`: Interleave::kRows rows, of which Interleave::store makes a group of a
// column.
template <typename Interleave>
void interleave_columns(const std::uint8_t* const* rows, std::size_t groups, std::size_t channels,
                        std::size_t pixel_stride, std::size_t strips, std::size_t strip_stride,
                        std::size_t count, std::uint8_t* columns) {
  for (std::size_t i = 0; i < count; ++i) {
    for (std::size_t group = 0; group < groups; ++group, columns += kColumnGroupBytes) {
      uint8x16_t pixels[Interleave::kRows];
      for (std::size_t row = 0; row < Interleave::kRows; ++row) {
        pixels[row] = load_strips(rows[Interleave::kRows * group + row] + i * pixel_stride,
                                  channels, strips, strip_stride);
      }
      Interleave::store(pixels, columns);
    }
  }
}

// Stores one pixel of each strip.
PYQUANT_INLINE void store_strips(const DepthwiseBlock& block, uint8x16_t bytes, std::uint8_t* y) {
  if (block.strips == 1) {
    store_bytes(y, bytes, block.channels);
    return;
  }
  std::uint8_t all[kBlockChannels];
  vst1q_u8(all, bytes);
  for (std::size_t strip = 0; strip < block.strips; ++strip) {
    for (std::size_t i = 0; i < block.channels; ++i) {
      y[strip * block.strip_stride + i] = all[strip * kBlockChannels / block.strips + i];
    }
  }
}

// The accumulators of one pixel of each of some rows.
template <int kRows>
struct Sums {
  int32x4_t of[kRows][kBlockVectors];
};

template <int kRows>
__attribute__((noinline)) void store_slowly(const Sums<kRows>& sums, const DepthwiseBlock& block,
                                            std::size_t row_count, void* y) {
  const std::size_t size = block.output.kind == OutputStage::Kind::kFloat ? sizeof(float) : 1;
  for (std::size_t row = 0; row < row_count; ++row) {
    std::int32_t values[kBlockChannels];
    for (std::size_t vector = 0; vector < kBlockVectors; ++vector) {
      vst1q_s32(values + kVectorChannels * vector, sums.of[row][vector]);
    }
    scalar::store_pixel(block.output, values, block.multipliers, kBlockVectors, kVectorChannels,
                        block.channels, static_cast<char*>(y) + row * block.row_stride * size);
  }
}

template <typename Multiply, int kRows>
PYQUANT_INLINE void convolve_pixel(const DepthwiseBlock& block, const std::uint8_t* columns,
                                   std::size_t row_count, void* y) {
  Sums<kRows> sums;
#pragma GCC unroll 4
  for (int row = 0; row < kRows; ++row) {
#pragma GCC unroll 4
    for (std::size_t vector = 0; vector < kBlockVectors; ++vector) {
      sums.of[row][vector] = vld1q_s32(block.offsets + kVectorChannels * vector);
    }
  }
  const std::int8_t* weights = block.weights;
  const std::size_t tap_bytes = block.tap_columns * block.groups * kColumnGroupBytes;
  for (std::size_t group = 0; group < block.groups; ++group) {
    const std::uint8_t* column = columns + group * kColumnGroupBytes;
    for (std::size_t tap = 0; tap < block.taps; ++tap, column += tap_bytes) {
#pragma GCC unroll 4
      for (std::size_t vector = 0; vector < kBlockVectors; ++vector) {
        const auto x = Multiply::load_column(column + 16 * vector);
#pragma GCC unroll 4
        for (std::size_t row = 0; row < kRows; ++row) {
          const auto w = Multiply::load_weights(weights + kColumnGroupBytes * row + 16 * vector);
          sums.of[row][vector] = Multiply::add(sums.of[row][vector], x, w);
        }
      }
      weights += kColumnGroupBytes * kRows;
    }
  }
  if (block.output.kind == OutputStage::Kind::kUInt8) {
    const Packer packer(block.output, block.multipliers);
#pragma GCC unroll 4
    for (std::size_t row = 0; row < kRows; ++row) {
      if (row < row_count) {
        store_strips(block, packer.bytes<kBlockVectors>(sums.of[row]),
                     static_cast<std::uint8_t*>(y) + row * block.row_stride);
      }
    }
  } else {
    const Sums<kRows> copy = sums;
    store_slowly(copy, block, row_count, y);
  }
}

template <typename Multiply, int kRows>
void convolve_rows(const DepthwiseBlock& block, const std::uint8_t* columns, std::size_t pixels,
                   std::size_t row_count, void* y) {
  const std::size_t size = block.output.kind == OutputStage::Kind::kFloat ? sizeof(float) : 1;
  for (std::size_t pixel = 0; pixel < pixels; ++pixel) {
    convolve_pixel<Multiply, kRows>(block, columns, row_count,
                                    static_cast<char*>(y) + pixel * block.pixel_stride * size);
    columns += block.stride_columns * block.groups * kColumnGroupBytes;
  }
}

// The table's `convolve_depthwise`.
template <typename Multiply>
void convolve_columns(const DepthwiseBlock& block, const std::uint8_t* columns, std::size_t pixels,
                      std::size_t row_count, void* y) {
  const auto function = block.rows == 4   ? convolve_rows<Multiply, 4>
                        : block.rows == 2 ? convolve_rows<Multiply, 2>
                                          : convolve_rows<Multiply, 1>;
  function(block, columns, pixels, row_count, y);
}

}  // namespace
}  // namespace pyquant::neon
