// Depthwise convolution: with four rows of the image interleaved bytewise, one multiply-add sums
// four rows of the kernel in one column, for 16 channels. Columns are interleaved once, into a
// buffer in the first-level cache, and used by every tap and by every output row of the block.
#include "kernels/avx512_vnni/depthwise_strips.h"

namespace pyquant::avx512_vnni {
namespace {

template <int kStrips>
PYQUANT_INLINE void store_column(const std::uint8_t* const* rows, std::size_t offset,
                                 std::size_t strip_stride, __mmask64 mask, std::uint8_t* column) {
  const Quad quad = interleave_rows(load_strips<kStrips>(rows[0] + offset, strip_stride, mask),
                                    load_strips<kStrips>(rows[1] + offset, strip_stride, mask),
                                    load_strips<kStrips>(rows[2] + offset, strip_stride, mask),
                                    load_strips<kStrips>(rows[3] + offset, strip_stride, mask));
  _mm512_store_si512(column, quad.a);
  _mm512_store_si512(column + 64, quad.b);
  _mm512_store_si512(column + 128, quad.c);
  _mm512_store_si512(column + 192, quad.d);
}

template <int kStrips>
void interleave_strips(const std::uint8_t* const* rows, std::size_t groups, std::size_t channels,
                       std::size_t pixel_stride, std::size_t strip_stride, std::size_t count,
                       std::uint8_t* columns) {
  const __mmask64 mask = ~__mmask64{0} >> (64 - channels);
  for (std::size_t group = 0; group < groups; ++group) {
    std::uint8_t* column = columns + group * kColumnGroupBytes;
    for (std::size_t i = 0; i < count; ++i) {
      store_column<kStrips>(rows + 4 * group, i * pixel_stride, strip_stride, mask, column);
      column += kColumnGroupBytes * groups;
    }
  }
}

// The accumulators of some neighbouring pixels of some rows.
template <int kRows, int kPixels>
struct Sums {
  __m512i of[kPixels][kRows][kBlockVectors];
};

template <int kVector, int kRow, int kPixels, int kRows>
PYQUANT_INLINE void start(Sums<kRows, kPixels>& sums, __m512i offsets) {
  if constexpr (kRow < kRows) {
    for (int pixel = 0; pixel < kPixels; ++pixel) {
      sums.of[pixel][kRow][kVector] = offsets;
    }
    start<kVector, kRow + 1>(sums, offsets);
  }
}

// One tap of one vector of channels. Weights are in registers for all pixels.
template <int kVector, int kPixels, int kRows>
PYQUANT_INLINE void add_vector(Sums<kRows, kPixels>& sums, const std::uint8_t* column,
                               std::size_t stride, const std::int8_t* weights) {
  __m512i w[kRows];
  w[0] = load<64 * kVector>(weights);
  if constexpr (kRows > 1) {
    w[1] = load<64 * kVector + 256>(weights);
  }
  if constexpr (kRows > 2) {
    w[2] = load<64 * kVector + 512>(weights);
    w[3] = load<64 * kVector + 768>(weights);
  }
#pragma GCC unroll 4
  for (int pixel = 0; pixel < kPixels; ++pixel) {
    const __m512i x = load<64 * kVector>(column);
#pragma GCC unroll 4
    for (int row = 0; row < kRows; ++row) {
      multiply_add(sums.of[pixel][row][kVector], x, w[row]);
    }
    column += stride;
  }
}

template <int kRows, int kPixels>
__attribute__((noinline)) void store_slowly(const Sums<kRows, kPixels>& sums,
                                            const DepthwiseBlock& block, std::size_t row_count,
                                            void* y) {
  const std::size_t size = block.output.kind == OutputStage::Kind::kFloat ? sizeof(float) : 1;
  for (std::size_t pixel = 0; pixel < kPixels; ++pixel) {
    for (std::size_t row = 0; row < row_count; ++row) {
      alignas(64) std::int32_t values[kBlockChannels];
      for (std::size_t i = 0; i < kBlockVectors; ++i) {
        _mm512_store_si512(values + 16 * i, sums.of[pixel][row][i]);
      }
      store_pixel(
          block.output, values, block.multipliers, kBlockVectors, block.channels,
          static_cast<char*>(y) + (pixel * block.pixel_stride + row * block.row_stride) * size);
    }
  }
}

// kTaps and kGroups: those of the block, or 0 for any number.
template <int kRows, int kPixels, int kGroups, int kTaps, PostOp kPostOp>
PYQUANT_INLINE void convolve_pixels(const DepthwiseBlock& block,
                                    const Packer<kBlockVectors, kPostOp>& packer,
                                    const std::uint8_t* columns, std::size_t row_count, void* y) {
  const std::size_t groups = kGroups == 0 ? block.groups : kGroups;
  const std::size_t taps = kTaps == 0 ? block.taps : kTaps;
  const std::size_t column_bytes = kColumnGroupBytes * groups;
  const std::size_t stride = block.stride_columns * column_bytes;
  Sums<kRows, kPixels> sums;
  start<0, 0>(sums, load<0>(block.offsets));
  start<1, 0>(sums, load<64>(block.offsets));
  start<2, 0>(sums, load<128>(block.offsets));
  start<3, 0>(sums, load<192>(block.offsets));
  const std::int8_t* weights = block.weights;
  for (std::size_t group = 0; group < groups; ++group) {
    const std::uint8_t* column = columns + group * kColumnGroupBytes;
    for (std::size_t tap = 0; tap < taps; ++tap) {
      add_vector<0>(sums, column, stride, weights);
      add_vector<1>(sums, column, stride, weights);
      add_vector<2>(sums, column, stride, weights);
      add_vector<3>(sums, column, stride, weights);
      weights += 256 * kRows;
      column += block.tap_columns * column_bytes;
    }
  }
  if (block.output.kind == OutputStage::Kind::kUInt8) {
    auto* out = static_cast<std::uint8_t*>(y);
    const ScalesInMemory scales = {block.multipliers, block.shifts};
    // All pixels before any is stored, so that their constants are loaded once.
    Scaled values[kRows][kPixels];
#pragma GCC unroll 4
    for (int row = 0; row < kRows; ++row) {
#pragma GCC unroll 4
      for (int pixel = 0; pixel < kPixels; ++pixel) {
        values[row][pixel] = packer.scale(sums.of[pixel][row], scales);
      }
    }
#pragma GCC unroll 4
    for (int row = 0; row < kRows; ++row) {
      if (static_cast<std::size_t>(row) < row_count) {
#pragma GCC unroll 4
        for (int pixel = 0; pixel < kPixels; ++pixel) {
          store_strips<0>(block, packer, values[row][pixel],
                          out + static_cast<std::size_t>(row) * block.row_stride +
                              static_cast<std::size_t>(pixel) * block.pixel_stride);
        }
      }
    }
  } else {
    const Sums<kRows, kPixels> copy = sums;
    store_slowly(copy, block, row_count, y);
  }
}

template <int kRows, int kGroups, int kTaps, PostOp kPostOp>
void convolve_rows_with(const DepthwiseBlock& block, const std::uint8_t* columns,
                        std::size_t pixels, std::size_t row_count, void* y) {
  constexpr int kPixels = 4 / kRows;  // so that 16 accumulators hide the latency
  const Packer<kBlockVectors, kPostOp> packer(block.output, block.channels);
  const std::size_t size = block.output.kind == OutputStage::Kind::kFloat ? sizeof(float) : 1;
  const std::size_t column_step = block.stride_columns * block.groups * kColumnGroupBytes;
  auto* out = static_cast<char*>(y);
  std::size_t pixel = 0;
  for (; pixel + kPixels <= pixels; pixel += kPixels) {
    convolve_pixels<kRows, kPixels, kGroups, kTaps, kPostOp>(block, packer, columns, row_count,
                                                             out);
    columns += kPixels * column_step;
    out += kPixels * block.pixel_stride * size;
  }
  for (; kPixels > 1 && pixel < pixels; ++pixel) {
    convolve_pixels<kRows, 1, kGroups, kTaps, kPostOp>(block, packer, columns, row_count, out);
    columns += column_step;
    out += block.pixel_stride * size;
  }
}

template <int kRows, int kGroups, int kTaps>
void convolve_rows(const DepthwiseBlock& block, const std::uint8_t* columns, std::size_t pixels,
                   std::size_t row_count, void* y) {
  with_post_op(block.output, [&]<PostOp kPostOp>() {
    convolve_rows_with<kRows, kGroups, kTaps, kPostOp>(block, columns, pixels, row_count, y);
  });
}

}  // namespace

void interleave(const std::uint8_t* const* rows, std::size_t groups, std::size_t channels,
                std::size_t pixel_stride, std::size_t strips, std::size_t strip_stride,
                std::size_t count, std::uint8_t* columns) {
  const auto function = strips == 1   ? interleave_strips<1>
                        : strips == 2 ? interleave_strips<2>
                                      : interleave_strips<4>;
  function(rows, groups, channels, pixel_stride, strip_stride, count, columns);
}

void convolve_depthwise(const DepthwiseBlock& block, const std::uint8_t* columns,
                        std::size_t pixels, std::size_t row_count, void* y) {
  if (block.rows == 4) {
    if (block.groups == 2 && block.taps == 5) {
      convolve_rows<4, 2, 5>(block, columns, pixels, row_count, y);
    } else {
      convolve_rows<4, 0, 0>(block, columns, pixels, row_count, y);
    }
  } else if (block.rows == 2) {
    if (block.groups == 1 && block.taps == 3) {
      convolve_rows<2, 1, 3>(block, columns, pixels, row_count, y);
    } else {
      convolve_rows<2, 0, 0>(block, columns, pixels, row_count, y);
    }
  } else if (block.groups == 1 && block.taps == 3) {
    convolve_rows<1, 1, 3>(block, columns, pixels, row_count, y);
  } else {
    convolve_rows<1, 0, 0>(block, columns, pixels, row_count, y);
  }
}

}  // namespace pyquant::avx512_vnni
