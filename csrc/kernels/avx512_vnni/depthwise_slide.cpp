// Depthwise convolution of 3 columns straight from the image: each column is interleaved in
// registers, multiplied for every window that it is under, and forgotten. Interleaving keeps one
// port of the core busy and multiplying both; apart, as through a buffer of columns, they do not
// overlap.
#include "kernels/avx512_vnni/depthwise_strips.h"

namespace pyquant::avx512_vnni {
namespace {

constexpr std::size_t kTaps = 3;

// The columns of the image, interleaved, one after the other.
template <int kStrips>
class Columns {
 public:
  PYQUANT_INLINE Columns(const DepthwiseRows& image, __mmask64 channels)
      : image_(image),
        rows_{image.rows[0], image.rows[1], image.rows[2], image.rows[3]},
        pixel_bytes_(static_cast<std::ptrdiff_t>(image.pixel_bytes)),
        strip_bytes_(static_cast<std::size_t>(image.strip_columns) * image.pixel_bytes),
        channels_(channels),
        column_(image.first_column),
        inside_(image.columns - (kStrips - 1) * image.strip_columns) {}

  PYQUANT_INLINE Quad next() {
    const std::ptrdiff_t column = column_++;
    if (column < 0 || column >= inside_) [[unlikely]] {
      return border(column);
    }
    const std::ptrdiff_t offset = column * pixel_bytes_;
    const auto row = [&](int i) {
      return load_strips<kStrips>(rows_[i] + offset, strip_bytes_, channels_);
    };
    return interleave_rows(row(0), row(1), row(2), row(3));
  }

 private:
  // A column that is outside the image for some strip, or for all.
  __attribute__((noinline)) Quad border(std::ptrdiff_t column) const {
    const __m512i outside = _mm512_set1_epi8(static_cast<char>(image_.zero_point));
    if constexpr (kStrips == 1) {
      return {outside, outside, outside, outside};
    } else {
      constexpr std::size_t kStripChannels = kBlockChannels / kStrips;
      __m512i rows[4];
      for (int i = 0; i < 4; ++i) {
        rows[i] = outside;
        for (int strip = 0; strip < kStrips; ++strip) {
          const std::ptrdiff_t source = column + strip * image_.strip_columns;
          if (source >= 0 && source < image_.columns) {
            const std::size_t place = kStripChannels * static_cast<std::size_t>(strip);
            const std::uint8_t* x = rows_[i] + source * pixel_bytes_;
            rows[i] = _mm512_mask_loadu_epi8(rows[i], channels_ << place, x - place);
          }
        }
      }
      return interleave_rows(rows[0], rows[1], rows[2], rows[3]);
    }
  }

  const DepthwiseRows& image_;
  const std::uint8_t* rows_[4];
  std::ptrdiff_t pixel_bytes_;
  std::size_t strip_bytes_;
  __mmask64 channels_;
  std::ptrdiff_t column_;
  std::ptrdiff_t inside_;  // columns that are inside the image for all strips
};

// The accumulators of a pixel of kRows output rows.
template <int kRows>
struct Sums {
  __m512i of[kRows][kBlockVectors];
};

PYQUANT_INLINE Sums<2> start_rows(const DepthwiseBlock& block) {
  Sums<2> sums;
  sums.of[0][0] = sums.of[1][0] = load<0>(block.offsets);
  sums.of[0][1] = sums.of[1][1] = load<64>(block.offsets);
  sums.of[0][2] = sums.of[1][2] = load<128>(block.offsets);
  sums.of[0][3] = sums.of[1][3] = load<192>(block.offsets);
  return sums;
}

// One column under one tap of the window.
template <int kTap, int kRows, int kRow = 0>
PYQUANT_INLINE void multiply(Sums<kRows>& sums, const Quad& column, const std::int8_t* weights) {
  if constexpr (kRow < kRows) {
    constexpr int kPlace = 64 * static_cast<int>(kBlockVectors) * (kTap * kRows + kRow);
    multiply_add<kPlace>(sums.of[kRow][0], column.a, weights);
    multiply_add<kPlace + 64>(sums.of[kRow][1], column.b, weights);
    multiply_add<kPlace + 128>(sums.of[kRow][2], column.c, weights);
    multiply_add<kPlace + 192>(sums.of[kRow][3], column.d, weights);
    multiply<kTap, kRows, kRow + 1>(sums, column, weights);
  }
}

template <int kStrips, PostOp kPostOp>
PYQUANT_INLINE void store_rows(const DepthwiseBlock& block,
                               const Packer<kBlockVectors, kPostOp>& packer, const Sums<2>& sums,
                               std::size_t row_count, std::uint8_t* y) {
  const ScalesInMemory scales = {block.multipliers, block.shifts};
  // Both before any is stored, so that their constants are loaded once.
  const Scaled first = packer.scale(sums.of[0], scales);
  const Scaled second = packer.scale(sums.of[1], scales);
  store_strips<kStrips>(block, packer, first, y);
  if (row_count == 2) {
    store_strips<kStrips>(block, packer, second, y + block.row_stride);
  }
}

// Windows two columns apart: the last column of one is the first of the next.
template <int kStrips, PostOp kPostOp>
void slide_by_two(const DepthwiseBlock& block, const DepthwiseRows& image, std::size_t pixels,
                  std::uint8_t* y) {
  const Packer<kBlockVectors, kPostOp> packer(block.output, block.channels);
  Columns<kStrips> columns(image, packer.channels);
  const ScalesInRegisters<kBlockVectors> scales(block.offsets, block.multipliers, block.shifts);
  const std::int8_t* weights = block.weights;
  Quad shared = columns.next();
  for (; pixels != 0; --pixels) {
    Sums<1> sums = {{{scales.offsets[0], scales.offsets[1], scales.offsets[2], scales.offsets[3]}}};
    multiply<0>(sums, shared, weights);
    multiply<1>(sums, columns.next(), weights);
    shared = columns.next();
    multiply<2>(sums, shared, weights);
    store_strips<kStrips>(block, packer, packer.scale(sums.of[0], scales), y);
    y += block.pixel_stride;
  }
}

// Windows one column apart, of two output rows: a column is the last of one window, the second of
// the next and the first of a new one.
template <int kStrips, PostOp kPostOp>
void slide_by_one(const DepthwiseBlock& block, const DepthwiseRows& image, std::size_t pixels,
                  std::size_t row_count, std::uint8_t* y) {
  const Packer<kBlockVectors, kPostOp> packer(block.output, block.channels);
  Columns<kStrips> columns(image, packer.channels);
  const std::int8_t* weights = block.weights;
  Sums<2> windows[kTaps];
  windows[0] = start_rows(block);
  multiply<0>(windows[0], columns.next(), weights);
  {
    const Quad quad = columns.next();
    windows[1] = start_rows(block);
    multiply<1>(windows[0], quad, weights);
    multiply<0>(windows[1], quad, weights);
  }
  const auto advance = [&](Sums<2>& last, Sums<2>& second, Sums<2>& first)
                           __attribute__((always_inline)) {
                             const Quad quad = columns.next();
                             multiply<2>(last, quad, weights);
                             first = start_rows(block);
                             multiply<1>(second, quad, weights);
                             multiply<0>(first, quad, weights);
                             store_rows<kStrips>(block, packer, last, row_count, y);
                             y += block.pixel_stride;
                           };
  for (; pixels >= kTaps; pixels -= kTaps) {
    advance(windows[0], windows[1], windows[2]);
    advance(windows[1], windows[2], windows[0]);
    advance(windows[2], windows[0], windows[1]);
  }
  if (pixels > 0) {
    advance(windows[0], windows[1], windows[2]);
  }
  if (pixels > 1) {
    advance(windows[1], windows[2], windows[0]);
  }
}

template <int kStrips>
void slide(const DepthwiseBlock& block, const DepthwiseRows& image, std::size_t pixels,
           std::size_t row_count, std::uint8_t* y) {
  with_post_op(block.output, [&]<PostOp kPostOp>() {
    if constexpr (kPostOp != PostOp::kAdd) {  // which few depthwise layers have: it is left out
      if (block.rows == 1) {
        slide_by_two<kStrips, kPostOp>(block, image, pixels, y);
      } else {
        slide_by_one<kStrips, kPostOp>(block, image, pixels, row_count, y);
      }
    }
  });
}

}  // namespace

bool slide_depthwise(const DepthwiseBlock& block, const DepthwiseRows& image, std::size_t pixels,
                     std::size_t row_count, std::uint8_t* y) {
  const bool by_one = block.rows == 2 && block.stride_columns == 1;
  const bool by_two = block.rows == 1 && block.stride_columns == 2;
  if (block.groups != 1 || block.taps != kTaps || block.tap_columns != 1 || !(by_one || by_two) ||
      block.output.kind != OutputStage::Kind::kUInt8 || block.output.post_op == PostOp::kAdd) {
    return false;
  }
  const auto function = block.strips == 1 ? slide<1> : block.strips == 2 ? slide<2> : slide<4>;
  function(block, image, pixels, row_count, y);
  return true;
}

}  // namespace pyquant::avx512_vnni
