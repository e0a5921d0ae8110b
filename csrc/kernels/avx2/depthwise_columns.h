// Depthwise convolution over columns of interleaved rows (see DepthwiseBlock): one multiplication
// sums some rows of the kernel in one column, for 8 channels. What is multiplied is Multiply's to
// say, so that avx2 and avx_vnni share this; all has internal linkage.
#pragma once

#include "kernels/avx2/output.h"
#include "kernels/scalar/kernels.h"

namespace pyquant::avx2 {
namespace {

constexpr std::size_t kBlockChannels = kDepthwiseVectors * kVectorChannels;
constexpr std::size_t kColumnGroupBytes = 4 * kBlockChannels;

// The channels of a pixel of each strip; the others are zero.
template <int kStrips>
PYQUANT_INLINE __m256i load_strips(const std::uint8_t* x, std::size_t stride,
                                   std::size_t channels) {
  constexpr std::size_t kStripChannels = kBlockChannels / kStrips;
  if (channels != kStripChannels) {
    alignas(32) std::uint8_t bytes[kBlockChannels] = {};
    for (std::size_t strip = 0; strip < kStrips; ++strip) {
      for (std::size_t i = 0; i < channels; ++i) {
        bytes[strip * kStripChannels + i] = x[strip * stride + i];
      }
    }
    return _mm256_load_si256(reinterpret_cast<const __m256i*>(bytes));
  }
  if constexpr (kStrips == 1) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x));
  } else if constexpr (kStrips == 2) {
    return _mm256_inserti128_si256(
        _mm256_castsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(x))),
        _mm_loadu_si128(reinterpret_cast<const __m128i*>(x + stride)), 1);
  } else {
    const auto pair = [&](const std::uint8_t* first) {
      return _mm_unpacklo_epi64(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(first)),
                                _mm_loadl_epi64(reinterpret_cast<const __m128i*>(first + stride)));
    };
    return _mm256_inserti128_si256(_mm256_castsi128_si256(pair(x)), pair(x + 2 * stride), 1);
  }
}

// Interleave::kRows rows of pixels, of which Interleave::store makes a group of a column.
template <typename Interleave, int kStrips>
void interleave_strips(const std::uint8_t* const* rows, std::size_t groups, std::size_t channels,
                       std::size_t pixel_stride, std::size_t strip_stride, std::size_t count,
                       std::uint8_t* columns) {
  for (std::size_t group = 0; group < groups; ++group) {
    auto* column = reinterpret_cast<__m256i*>(columns + group * kColumnGroupBytes);
    for (std::size_t i = 0; i < count; ++i) {
      __m256i pixels[Interleave::kRows];
      for (std::size_t row = 0; row < Interleave::kRows; ++row) {
        pixels[row] = load_strips<kStrips>(rows[Interleave::kRows * group + row] + i * pixel_stride,
                                           strip_stride, channels);
      }
      Interleave::store(pixels, column);
      column += kDepthwiseVectors * groups;
    }
  }
}

// The table's `interleave`.
template <typename Interleave>
void interleave_columns(const std::uint8_t* const* rows, std::size_t groups, std::size_t channels,
                        std::size_t pixel_stride, std::size_t strips, std::size_t strip_stride,
                        std::size_t count, std::uint8_t* columns) {
  const auto function = strips == 1   ? interleave_strips<Interleave, 1>
                        : strips == 2 ? interleave_strips<Interleave, 2>
                                      : interleave_strips<Interleave, 4>;
  function(rows, groups, channels, pixel_stride, strip_stride, count, columns);
}

// Stores one pixel of each strip.
PYQUANT_INLINE void store_strips(const DepthwiseBlock& block, __m256i bytes, std::uint8_t* y) {
  const std::size_t stride = block.strip_stride;
  if (block.strips == 1) {
    store_bytes(y, bytes, block.channels);
    return;
  }
  const __m128i low = _mm256_castsi256_si128(bytes);
  const __m128i high = _mm256_extracti128_si256(bytes, 1);
  if (block.strips == 2) {
    store_bytes(y, low, block.channels);
    store_bytes(y + stride, high, block.channels);
  } else {
    store_bytes(y, low, block.channels);
    store_bytes(y + stride, _mm_srli_si128(low, 8), block.channels);
    store_bytes(y + 2 * stride, high, block.channels);
    store_bytes(y + 3 * stride, _mm_srli_si128(high, 8), block.channels);
  }
}

// The accumulators of two vectors of some neighbouring pixels of some rows.
template <int kRows, int kPixels>
struct Sums {
  __m256i of[kPixels][kRows][2];
};

// kTaps and kGroups: those of the block, or 0 for any number. kFirst: the first of two vectors.
template <typename Multiply, int kFirst, int kGroups, int kTaps, int kRows, int kPixels>
PYQUANT_INLINE void add_up(const DepthwiseBlock& block, const std::uint8_t* columns,
                           Sums<kRows, kPixels>& sums) {
  const std::size_t groups = kGroups == 0 ? block.groups : kGroups;
  const std::size_t taps = kTaps == 0 ? block.taps : kTaps;
  const std::size_t column_bytes = kColumnGroupBytes * groups;
  const std::size_t stride = block.stride_columns * column_bytes;
  const auto* offsets = reinterpret_cast<const __m256i*>(block.offsets) + kFirst;
#pragma GCC unroll 8
  for (int i = 0; i < kPixels * kRows * 2; ++i) {
    sums.of[i / (2 * kRows)][i / 2 % kRows][i % 2] = _mm256_load_si256(offsets + i % 2);
  }
  const auto* weights = reinterpret_cast<const __m256i*>(block.weights) + kFirst;
  for (std::size_t group = 0; group < groups; ++group) {
    const std::uint8_t* column = columns + group * kColumnGroupBytes + 32 * kFirst;
    for (std::size_t tap = 0; tap < taps; ++tap) {
#pragma GCC unroll 2
      for (int vector = 0; vector < 2; ++vector) {
        __m256i w[kRows];
#pragma GCC unroll 4
        for (int row = 0; row < kRows; ++row) {
          w[row] = _mm256_load_si256(weights + static_cast<int>(kDepthwiseVectors) * row + vector);
        }
#pragma GCC unroll 4
        for (int pixel = 0; pixel < kPixels; ++pixel) {
          const __m256i x = _mm256_load_si256(
              reinterpret_cast<const __m256i*>(column + static_cast<std::size_t>(pixel) * stride) +
              vector);
#pragma GCC unroll 4
          for (int row = 0; row < kRows; ++row) {
            Multiply::add(sums.of[pixel][row][vector], x, w[row]);
          }
        }
      }
      weights += kDepthwiseVectors * kRows;
      column += block.tap_columns * column_bytes;
    }
  }
}

template <int kRows, int kPixels>
__attribute__((noinline)) void store_slowly(const Sums<kRows, kPixels>* halves,
                                            const DepthwiseBlock& block, std::size_t row_count,
                                            void* y) {
  const std::size_t size = block.output.kind == OutputStage::Kind::kFloat ? sizeof(float) : 1;
  for (std::size_t pixel = 0; pixel < kPixels; ++pixel) {
    for (std::size_t row = 0; row < row_count; ++row) {
      alignas(32) std::int32_t values[kBlockChannels];
      for (std::size_t i = 0; i < kDepthwiseVectors; ++i) {
        _mm256_store_si256(reinterpret_cast<__m256i*>(values) + i,
                           halves[i / 2].of[pixel][row][i % 2]);
      }
      scalar::store_pixel(
          block.output, values, block.multipliers, kDepthwiseVectors, kVectorChannels,
          block.channels,
          static_cast<char*>(y) + (pixel * block.pixel_stride + row * block.row_stride) * size);
    }
  }
}

template <typename Multiply, int kRows, int kPixels, int kGroups, int kTaps>
PYQUANT_INLINE void convolve_pixels(const DepthwiseBlock& block, const Packer& packer,
                                    const std::uint8_t* columns, std::size_t row_count, void* y) {
  if (block.output.kind != OutputStage::Kind::kUInt8) {
    Sums<kRows, kPixels> halves[2];
    add_up<Multiply, 0, kGroups, kTaps>(block, columns, halves[0]);
    add_up<Multiply, 2, kGroups, kTaps>(block, columns, halves[1]);
    store_slowly(halves, block, row_count, y);
    return;
  }
  Sums<kRows, kPixels> sums;
  __m256i first_words[kPixels][kRows];
  add_up<Multiply, 0, kGroups, kTaps>(block, columns, sums);
#pragma GCC unroll 4
  for (int i = 0; i < kPixels * kRows; ++i) {
    const auto& pair = sums.of[i / kRows][i % kRows];
    first_words[i / kRows][i % kRows] = packer.words(pair[0], 0, pair[1], 1);
  }
  add_up<Multiply, 2, kGroups, kTaps>(block, columns, sums);
  auto* out = static_cast<std::uint8_t*>(y);
#pragma GCC unroll 4
  for (int row = 0; row < kRows; ++row) {
    if (static_cast<std::size_t>(row) < row_count) {
#pragma GCC unroll 4
      for (int pixel = 0; pixel < kPixels; ++pixel) {
        const auto& pair = sums.of[pixel][row];
        store_strips(block,
                     packer.bytes(first_words[pixel][row], packer.words(pair[0], 2, pair[1], 3)),
                     out + static_cast<std::size_t>(row) * block.row_stride +
                         static_cast<std::size_t>(pixel) * block.pixel_stride);
      }
    }
  }
}

template <typename Multiply, int kRows, int kGroups, int kTaps>
void convolve_rows(const DepthwiseBlock& block, const std::uint8_t* columns, std::size_t pixels,
                   std::size_t row_count, void* y) {
  constexpr int kPixels = 4 / kRows;  // so that 8 accumulators hide most of the latency
  const Packer packer(block.output, block.multipliers);
  const std::size_t size = block.output.kind == OutputStage::Kind::kFloat ? sizeof(float) : 1;
  const std::size_t column_step = block.stride_columns * block.groups * kColumnGroupBytes;
  auto* out = static_cast<char*>(y);
  std::size_t pixel = 0;
  for (; pixel + kPixels <= pixels; pixel += kPixels) {
    convolve_pixels<Multiply, kRows, kPixels, kGroups, kTaps>(block, packer, columns, row_count,
                                                              out);
    columns += kPixels * column_step;
    out += kPixels * block.pixel_stride * size;
  }
  for (; kPixels > 1 && pixel < pixels; ++pixel) {
    convolve_pixels<Multiply, kRows, 1, kGroups, kTaps>(block, packer, columns, row_count, out);
    columns += column_step;
    out += block.pixel_stride * size;
  }
}

// The table's `convolve_depthwise`. kGroups3: the groups of a 3x3 kernel.
template <typename Multiply, int kGroups3>
void convolve_columns(const DepthwiseBlock& block, const std::uint8_t* columns, std::size_t pixels,
                      std::size_t row_count, void* y) {
  const bool usual = block.groups == kGroups3 && block.taps == 3;
  const auto function =
      block.rows == 4 ? convolve_rows<Multiply, 4, 0, 0>
      : block.rows == 2
          ? (usual ? convolve_rows<Multiply, 2, kGroups3, 3> : convolve_rows<Multiply, 2, 0, 0>)
      : usual ? convolve_rows<Multiply, 1, kGroups3, 3>
              : convolve_rows<Multiply, 1, 0, 0>;
  function(block, columns, pixels, row_count, y);
}

}  // namespace
}  // namespace pyquant::avx2
