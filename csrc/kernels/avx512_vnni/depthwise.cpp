// Depthwise convolution: with four rows of the image interleaved bytewise, one multiply-add sums
// four rows of the kernel in one column, for 16 channels. Columns are interleaved once, into a
// buffer in the first-level cache, and used by every tap and by every output row of the block.
#include "kernels/avx512_vnni/output.h"

namespace pyquant::avx512_vnni {
namespace {

PYQUANT_INLINE void store_column(const std::uint8_t* const* rows, std::size_t offset,
                                 __mmask64 mask, std::uint8_t* column) {
  const __m512i a = _mm512_maskz_loadu_epi8(mask, rows[0] + offset);
  const __m512i b = _mm512_maskz_loadu_epi8(mask, rows[1] + offset);
  const __m512i c = _mm512_maskz_loadu_epi8(mask, rows[2] + offset);
  const __m512i d = _mm512_maskz_loadu_epi8(mask, rows[3] + offset);
  const __m512i ab_low = _mm512_unpacklo_epi8(a, b);
  const __m512i ab_high = _mm512_unpackhi_epi8(a, b);
  const __m512i cd_low = _mm512_unpacklo_epi8(c, d);
  const __m512i cd_high = _mm512_unpackhi_epi8(c, d);
  _mm512_store_si512(column, _mm512_unpacklo_epi16(ab_low, cd_low));
  _mm512_store_si512(column + 64, _mm512_unpackhi_epi16(ab_low, cd_low));
  _mm512_store_si512(column + 128, _mm512_unpacklo_epi16(ab_high, cd_high));
  _mm512_store_si512(column + 192, _mm512_unpackhi_epi16(ab_high, cd_high));
}

template <int kRows>
struct Sums {
  __m512i rows[kRows][kBlockVectors];
};

template <int kRow, int kRows>
PYQUANT_INLINE void add_row(Sums<kRows>& sums, const __m512i* x, const std::int8_t* weights) {
  if constexpr (kRow < kRows) {
    multiply_add<256 * kRow>(sums.rows[kRow][0], x[0], weights);
    multiply_add<256 * kRow + 64>(sums.rows[kRow][1], x[1], weights);
    multiply_add<256 * kRow + 128>(sums.rows[kRow][2], x[2], weights);
    multiply_add<256 * kRow + 192>(sums.rows[kRow][3], x[3], weights);
    add_row<kRow + 1>(sums, x, weights);
  }
}

template <int kRow, int kRows>
PYQUANT_INLINE void start(Sums<kRows>& sums, const std::int32_t* offsets) {
  if constexpr (kRow < kRows) {
    sums.rows[kRow][0] = load<0>(offsets);
    sums.rows[kRow][1] = load<64>(offsets);
    sums.rows[kRow][2] = load<128>(offsets);
    sums.rows[kRow][3] = load<192>(offsets);
    start<kRow + 1>(sums, offsets);
  }
}

template <int kRows>
__attribute__((noinline)) void store_slowly(const Sums<kRows>& sums, const DepthwiseBlock& block,
                                            std::size_t row_count, void* y) {
  const std::size_t size = block.output.kind == OutputStage::Kind::kFloat ? sizeof(float) : 1;
  for (std::size_t row = 0; row < row_count; ++row) {
    alignas(64) std::int32_t values[kBlockChannels];
    for (std::size_t i = 0; i < kBlockVectors; ++i) {
      _mm512_store_si512(values + 16 * i, sums.rows[row][i]);
    }
    store_pixel(block.output, values, block.multipliers, kBlockVectors, block.channels,
                static_cast<char*>(y) + row * block.row_stride * size);
  }
}

// kTaps and kGroups: those of the block, or 0 for any number.
template <int kRows, int kGroups, int kTaps>
void convolve_rows(const DepthwiseBlock& block, const std::uint8_t* columns, std::size_t pixels,
                   std::size_t row_count, void* y) {
  const std::size_t groups = kGroups == 0 ? block.groups : kGroups;
  const std::size_t taps = kTaps == 0 ? block.taps : kTaps;
  const std::size_t column_bytes = kColumnGroupBytes * groups;
  const Packer<kBlockVectors> packer(block.output, block.multipliers, block.channels);
  const std::size_t size = block.output.kind == OutputStage::Kind::kFloat ? sizeof(float) : 1;
  for (std::size_t pixel = 0; pixel < pixels; ++pixel) {
    Sums<kRows> sums;
    start<0>(sums, block.offsets);
    const std::int8_t* weights = block.weights;
    for (std::size_t group = 0; group < groups; ++group) {
      const std::uint8_t* column = columns + group * kColumnGroupBytes;
      for (std::size_t tap = 0; tap < taps; ++tap) {
        const __m512i x[] = {load<0>(column), load<64>(column), load<128>(column),
                             load<192>(column)};
        add_row<0>(sums, x, weights);
        weights += 256 * kRows;
        column += block.tap_columns * column_bytes;
      }
    }
    if (block.output.kind == OutputStage::Kind::kUInt8) {
      auto* out = static_cast<std::uint8_t*>(y);
      packer.store(sums.rows[0], 1, out, 0);
      for (int row = 1; row < kRows; ++row) {
        if (static_cast<std::size_t>(row) < row_count) {
          packer.store(sums.rows[row], 1, out + static_cast<std::size_t>(row) * block.row_stride,
                       0);
        }
      }
    } else {
      const Sums<kRows> copy = sums;
      store_slowly(copy, block, row_count, y);
    }
    columns += block.stride_columns * column_bytes;
    y = static_cast<char*>(y) + block.pixel_stride * size;
  }
}

}  // namespace

void interleave(const std::uint8_t* const* rows, std::size_t groups, std::size_t channels,
                std::size_t pixel_stride, std::size_t count, std::uint8_t* columns) {
  const __mmask64 mask = ~__mmask64{0} >> (64 - channels);
  for (std::size_t group = 0; group < groups; ++group) {
    std::uint8_t* column = columns + group * kColumnGroupBytes;
    for (std::size_t i = 0; i < count; ++i) {
      store_column(rows + 4 * group, i * pixel_stride, mask, column);
      column += kColumnGroupBytes * groups;
    }
  }
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
