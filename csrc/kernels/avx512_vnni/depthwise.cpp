// Depthwise convolution: with four rows of the image interleaved bytewise, one multiply-add sums
// four rows of the kernel in one column, for 16 channels. Columns are interleaved once, into a
// buffer in the first-level cache, and used by every tap and by every output row of the block.
#include "kernels/avx512_vnni/output.h"

namespace pyquant::avx512_vnni {
namespace {

// The channels of a pixel of each strip.
template <int kStrips>
PYQUANT_INLINE __m512i load_strips(const std::uint8_t* x, std::size_t stride, __mmask64 mask) {
  if constexpr (kStrips == 1) {
    return _mm512_maskz_loadu_epi8(mask, x);
  } else if constexpr (kStrips == 2) {
    const auto half = static_cast<__mmask32>(mask);
    return _mm512_inserti64x4(_mm512_castsi256_si512(_mm256_maskz_loadu_epi8(half, x)),
                              _mm256_maskz_loadu_epi8(half, x + stride), 1);
  } else {
    const auto quarter = static_cast<__mmask16>(mask);
    __m512i value = _mm512_castsi128_si512(_mm_maskz_loadu_epi8(quarter, x));
    value = _mm512_inserti32x4(value, _mm_maskz_loadu_epi8(quarter, x + stride), 1);
    value = _mm512_inserti32x4(value, _mm_maskz_loadu_epi8(quarter, x + 2 * stride), 2);
    return _mm512_inserti32x4(value, _mm_maskz_loadu_epi8(quarter, x + 3 * stride), 3);
  }
}

template <int kStrips>
PYQUANT_INLINE void store_column(const std::uint8_t* const* rows, std::size_t offset,
                                 std::size_t strip_stride, __mmask64 mask, std::uint8_t* column) {
  const __m512i a = load_strips<kStrips>(rows[0] + offset, strip_stride, mask);
  const __m512i b = load_strips<kStrips>(rows[1] + offset, strip_stride, mask);
  const __m512i c = load_strips<kStrips>(rows[2] + offset, strip_stride, mask);
  const __m512i d = load_strips<kStrips>(rows[3] + offset, strip_stride, mask);
  const __m512i ab_low = _mm512_unpacklo_epi8(a, b);
  const __m512i ab_high = _mm512_unpackhi_epi8(a, b);
  const __m512i cd_low = _mm512_unpacklo_epi8(c, d);
  const __m512i cd_high = _mm512_unpackhi_epi8(c, d);
  _mm512_store_si512(column, _mm512_unpacklo_epi16(ab_low, cd_low));
  _mm512_store_si512(column + 64, _mm512_unpackhi_epi16(ab_low, cd_low));
  _mm512_store_si512(column + 128, _mm512_unpacklo_epi16(ab_high, cd_high));
  _mm512_store_si512(column + 192, _mm512_unpackhi_epi16(ab_high, cd_high));
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

// Stores one pixel of each strip.
template <PostOp kPostOp>
PYQUANT_INLINE void store_strips(const DepthwiseBlock& block,
                                 const Packer<kBlockVectors, kPostOp>& packer, const __m512i* sums,
                                 std::uint8_t* y) {
  const ScalesInMemory scales = {block.multipliers, block.shifts};
  const __m512i bytes = packer.finish(packer.scale(sums, scales), [&](std::ptrdiff_t distance) {
    const std::uint8_t* other = y + distance;
    return block.strips == 1   ? load_strips<1>(other, block.strip_stride, packer.channels)
           : block.strips == 2 ? load_strips<2>(other, block.strip_stride, packer.channels)
                               : load_strips<4>(other, block.strip_stride, packer.channels);
  });
  if (block.strips == 1) {
    _mm512_mask_storeu_epi8(y, packer.channels, bytes);
  } else if (block.strips == 2) {
    const auto half = static_cast<__mmask32>(packer.channels);
    _mm256_mask_storeu_epi8(y, half, _mm512_castsi512_si256(bytes));
    _mm256_mask_storeu_epi8(y + block.strip_stride, half, _mm512_extracti64x4_epi64(bytes, 1));
  } else {
    const auto quarter = static_cast<__mmask16>(packer.channels);
    const std::size_t stride = block.strip_stride;
    _mm_mask_storeu_epi8(y, quarter, _mm512_castsi512_si128(bytes));
    _mm_mask_storeu_epi8(y + stride, quarter, _mm512_extracti32x4_epi32(bytes, 1));
    _mm_mask_storeu_epi8(y + 2 * stride, quarter, _mm512_extracti32x4_epi32(bytes, 2));
    _mm_mask_storeu_epi8(y + 3 * stride, quarter, _mm512_extracti32x4_epi32(bytes, 3));
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
#pragma GCC unroll 4
    for (int row = 0; row < kRows; ++row) {
      if (static_cast<std::size_t>(row) < row_count) {
#pragma GCC unroll 4
        for (int pixel = 0; pixel < kPixels; ++pixel) {
          store_strips(block, packer, sums.of[pixel][row],
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
  with_post_op(block.output, [&]<PostOp kPostOp> {
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
