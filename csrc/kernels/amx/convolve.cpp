// Convolution with tile registers: up to 16 output pixels times 16 channels are one accumulator.
// An input tile holds up to 64 bytes of each pixel, read where they are in the image; a weight
// tile holds the weights of these bytes for one vector of channels.
#include "kernels/amx/kernels.h"
#include "kernels/amx/tile_configuration.h"
#include "kernels/avx512_vnni/output.h"

namespace pyquant::amx {
namespace {

using avx512_vnni::Packer;
using avx512_vnni::PostOp;

constexpr std::size_t kTileRows = 16;
constexpr std::size_t kTileSteps = 16;  // of 4 bytes
// With fewer steps for each output, moving the accumulators to vector registers costs more than the
// multiplications save.
constexpr std::size_t kLeastSteps = 4;

// How the outputs are cut into tiles, all of one size; where they do not fit, the last of a row
// overlaps the one before it. What both compute only the first one stores, because the output may
// be in the place of an operand.
struct Tiling {
  std::size_t pixels;  // of a tile
  std::size_t tiles_in_row;
  std::size_t steps;                 // of an input tile
  std::size_t chunks;                // input tiles in a run
  std::size_t prefetched_lines = 0;  // of the next block's weights, per input tile
  bool worthwhile;

  Tiling(const ConvLayout& layout, std::size_t row_pixels)
      : tiles_in_row((row_pixels + kTileRows - 1) / kTileRows) {
    pixels = (row_pixels + tiles_in_row - 1) / tiles_in_row;
    // Input tiles are equal parts of a run, so that none reaches beyond it.
    steps = layout.steps < kTileSteps ? layout.steps : kTileSteps;
    while (layout.steps % steps != 0) {
      --steps;
    }
    chunks = layout.steps / steps;
    // A multiplication takes as long for few steps as for many, and no less for 8 pixels than for
    // fewer.
    const std::size_t cycles = pixels < 8 ? 8 : pixels;
    worthwhile = 2 * cycles < steps * pixels && layout.tap_count * layout.steps >= kLeastSteps;
  }

  // So many lines that all of the next block's weights are fetched during this one.
  void spread_prefetch(const ConvLayout& layout, const ConvBlock& block, std::size_t rows) {
    const std::size_t tile_pairs = (rows * tiles_in_row + 1) / 2;
    const std::size_t times = tile_pairs * ((block.vectors + 1) / 2) * layout.tap_count * chunks;
    const auto bytes = static_cast<std::size_t>(block.prefetch_end - block.prefetch);
    prefetched_lines = (bytes / 64 + times - 1) / times;
  }
};

struct TileInput {
  const std::uint8_t* x;
  char* y;
  std::size_t first;  // pixel to be stored
};

inline std::size_t output_size(const ConvLayout& layout) { return layout.output.output_bytes(); }

// The tile registers: accumulators 0 to 3 are [pixel tile][vector], 4 and 5 hold inputs, 6 and 7
// weights.
inline void configure(const Tiling& tiling) {
  TileConfiguration configuration;
  for (int i = 0; i < 4; ++i) {
    configuration.rows[i] = static_cast<std::uint8_t>(tiling.pixels);
    configuration.row_bytes[i] = 64;
  }
  for (int i = 4; i < 6; ++i) {
    configuration.rows[i] = static_cast<std::uint8_t>(tiling.pixels);
    configuration.row_bytes[i] = static_cast<std::uint16_t>(4 * tiling.steps);
  }
  for (int i = 6; i < 8; ++i) {
    configuration.rows[i] = static_cast<std::uint8_t>(tiling.steps);
    configuration.row_bytes[i] = 64;
  }
  load(configuration);
}

// The constants of a block's vectors.
template <int kVectors>
struct ScalesInRegisters {
  __m512i offsets[kVectors];
  __m512 multipliers[kVectors], shifts[kVectors];
  bool floats;

  PYQUANT_INLINE explicit ScalesInRegisters(const ConvBlock& block)
      : floats(block.shifts != nullptr) {
#pragma GCC unroll 4
    for (int i = 0; i < kVectors; ++i) {
      offsets[i] = _mm512_load_si512(block.offsets + 16 * i);
      multipliers[i] = _mm512_load_ps(block.multipliers + 16 * i);
      shifts[i] = floats ? _mm512_load_ps(block.shifts + 16 * i) : _mm512_setzero_ps();
    }
  }

  PYQUANT_INLINE bool float_sums() const { return floats; }
  PYQUANT_INLINE __m512 multiplier(int vector) const { return multipliers[vector]; }
  PYQUANT_INLINE __m512 shift(int vector) const { return shifts[vector]; }
};

// The stores of one or two tiles, done a few pixels at a time between the multiplications of the
// next ones, which leave the vector units idle.
template <int kVectors, PostOp kPostOp>
class PendingStores {
 public:
  PendingStores(const ConvLayout& layout, const ConvBlock& block, std::size_t pixels)
      : layout_(layout),
        block_(block),
        packer_(layout.output, block.channels),
        kind_(layout.output.kind),
        stride_(layout.output_stride),
        pixels_(pixels) {}

  void start(const TileInput* tiles, int count, const std::int32_t* sums) {
    for (int i = 0; i < count; ++i) {
      y_[i] = tiles[i].y;
      first_[i] = tiles[i].first;
    }
    count_ = count;
    tile_ = 0;
    pixel_ = first_[0];
    sums_ = sums;
  }

  // How often to advance in each of `times` equal parts of the work.
  std::size_t share(std::size_t times) const {
    const std::size_t steps =
        static_cast<std::size_t>(count_ - tile_) * ((pixels_ + kStep - 1) / kStep);
    return (steps + times - 1) / times;
  }

  PYQUANT_INLINE void advance(std::size_t steps) {
    while (steps != 0 && tile_ != count_) {
      const std::size_t left = (pixels_ - pixel_ + kStep - 1) / kStep;
      const std::size_t now = steps < left ? steps : left;
      const std::size_t end = pixel_ + now * kStep < pixels_ ? pixel_ + now * kStep : pixels_;
      store(pixel_, end);
      steps -= now;
      pixel_ = end;
      if (end == pixels_) {
        ++tile_;
        pixel_ = first_[tile_ & 1];
      }
    }
  }

 private:
  static constexpr std::size_t kStep = avx512_vnni::kPixelsInStore<kVectors>;

  PYQUANT_INLINE void store(std::size_t begin, std::size_t end) const {
    const std::int32_t* sums =
        sums_ + 16 * kVectors * (static_cast<std::size_t>(tile_) * kTileRows + begin);
    if (kind_ == OutputStage::Kind::kInt32) {
      store_sums(sums, begin, end);
      return;
    }
    if (kind_ != OutputStage::Kind::kUInt8) {
      store_slowly(sums, begin, end);
      return;
    }
    auto* y = reinterpret_cast<std::uint8_t*>(y_[tile_]) + begin * stride_;
    const ScalesInRegisters<kVectors> scales(block_);
    for (std::size_t pixel = begin; pixel < end; pixel += kStep) {
      __m512i values[kStep * kVectors];
#pragma GCC unroll 4
      for (std::size_t i = 0; i < kStep * kVectors; ++i) {
        values[i] =
            _mm512_add_epi32(scales.offsets[i % kVectors], _mm512_load_si512(sums + 16 * i));
      }
      packer_.store(values, scales, static_cast<int>(end - pixel), y, stride_);
      sums += 16 * kVectors * kStep;
      y += kStep * stride_;
    }
  }

  // The tiles begin at zero: loading the offsets into them takes longer than adding them here,
  // above all while another hardware thread of the core loads as well.
  PYQUANT_INLINE __m512i with_offsets(const std::int32_t* sums, std::size_t vector) const {
    return _mm512_add_epi32(_mm512_load_si512(sums),
                            _mm512_load_si512(block_.offsets + 16 * vector));
  }

  PYQUANT_INLINE void store_sums(const std::int32_t* sums, std::size_t begin,
                                 std::size_t end) const {
    for (std::size_t pixel = begin; pixel < end; ++pixel, sums += 16 * kVectors) {
      auto* y = reinterpret_cast<std::int32_t*>(y_[tile_]) + pixel * stride_;
#pragma GCC unroll 4
      for (std::size_t i = 0; i < kVectors; ++i) {
        _mm512_storeu_si512(y + 16 * i, with_offsets(sums + 16 * i, i));
      }
    }
  }

  __attribute__((noinline)) void store_slowly(const std::int32_t* sums, std::size_t begin,
                                              std::size_t end) const {
    const std::size_t size = output_size(layout_);
    for (std::size_t pixel = begin; pixel < end; ++pixel, sums += 16 * kVectors) {
      alignas(64) std::int32_t values[16 * kVectors];
#pragma GCC unroll 4
      for (std::size_t i = 0; i < kVectors; ++i) {
        _mm512_store_si512(values + 16 * i, with_offsets(sums + 16 * i, i));
      }
      avx512_vnni::store_pixel(layout_.output, values, block_.multipliers, kVectors,
                               block_.channels, y_[tile_] + pixel * stride_ * size);
    }
  }

  const ConvLayout& layout_;
  const ConvBlock& block_;
  Packer<kVectors, kPostOp> packer_;
  OutputStage::Kind kind_;
  std::size_t stride_;
  std::size_t pixels_;  // of a tile
  char* y_[2] = {};
  std::size_t first_[2] = {};
  int count_ = 0, tile_ = 0;
  std::size_t pixel_ = 0;
  const std::int32_t* sums_ = nullptr;
};

// The accumulators of one or two tiles of pixels and of one or two vectors of the block's
// kVectors. sums: [pixel][vector][lane], 16 pixels a tile.
template <int kTiles, int kCount, int kVectors, PostOp kPostOp>
inline void multiply(const ConvLayout& layout, const Tiling& tiling, ConvBlock& block,
                     const TileInput* tiles, int vector, PendingStores<kVectors, kPostOp>& pending,
                     std::size_t share, std::int32_t* sums) {
  constexpr std::size_t kStride = 64 * kVectors;
  _tile_zero(0);
  if constexpr (kCount > 1) {
    _tile_zero(1);
  }
  if constexpr (kTiles > 1) {
    _tile_zero(2);
    if constexpr (kCount > 1) {
      _tile_zero(3);
    }
  }
  const std::int8_t* weights = block.weights + 64 * vector;
  const std::int8_t* next = block.prefetch;
  const std::size_t input_bytes = 4 * tiling.steps;
  for (std::size_t tap = 0; tap < layout.tap_count; ++tap) {
    const std::ptrdiff_t offset = layout.taps[tap];
    const std::uint8_t* x0 = tiles[0].x + offset;
    const std::uint8_t* x1 = tiles[kTiles - 1].x + offset;
    for (std::size_t chunk = tiling.chunks; chunk != 0; --chunk) {
      _tile_loadd(6, weights, kStride);
      _tile_loadd(4, x0, layout.pixel_stride);
      _tile_dpbusd(0, 4, 6);
      if constexpr (kCount > 1) {
        _tile_loadd(7, weights + 64, kStride);
        _tile_dpbusd(1, 4, 7);
      }
      if constexpr (kTiles > 1) {
        _tile_loadd(5, x1, layout.pixel_stride);
        _tile_dpbusd(2, 5, 6);
        if constexpr (kCount > 1) {
          _tile_dpbusd(3, 5, 7);
        }
      }
      for (std::size_t line = 0; line < tiling.prefetched_lines; ++line, next += 64) {
        _mm_prefetch(reinterpret_cast<const char*>(next), _MM_HINT_T1);
      }
      pending.advance(share);
      weights += tiling.steps * kStride;
      x0 += input_bytes;
      x1 += input_bytes;
    }
  }
  block.prefetch = next < block.prefetch_end ? next : block.weights;
  std::int32_t* target = sums + 16 * vector;
  _tile_stored(0, target, kStride);
  if constexpr (kCount > 1) {
    _tile_stored(1, target + 16, kStride);
  }
  if constexpr (kTiles > 1) {
    std::int32_t* second = target + 16 * kTileRows * kVectors;
    _tile_stored(2, second, kStride);
    if constexpr (kCount > 1) {
      _tile_stored(3, second + 16, kStride);
    }
  }
}

template <int kTiles, int kVectors, PostOp kPostOp>
inline void convolve_tiles(const ConvLayout& layout, const Tiling& tiling, ConvBlock& block,
                           const TileInput* tiles, PendingStores<kVectors, kPostOp>& pending,
                           std::int32_t* sums) {
  const std::size_t share = pending.share(layout.tap_count * tiling.chunks * ((kVectors + 1) / 2));
  for (int vector = 0; vector + 2 <= kVectors; vector += 2) {
    multiply<kTiles, 2>(layout, tiling, block, tiles, vector, pending, share, sums);
  }
  if constexpr (kVectors % 2 != 0) {
    multiply<kTiles, 1>(layout, tiling, block, tiles, kVectors - 1, pending, share, sums);
  }
  pending.start(tiles, kTiles, sums);
}

template <int kVectors, PostOp kPostOp>
void convolve_block(const ConvLayout& layout, const Tiling& tiling, ConvBlock& block,
                    const std::uint8_t* x, std::size_t rows, std::size_t pixels, char* y) {
  // The sums being computed and those being stored.
  alignas(64) std::int32_t sums[2][2 * kTileRows * 16 * kVectors];
  PendingStores<kVectors, kPostOp> pending(layout, block, tiling.pixels);
  TileInput waiting[2];
  int count = 0;
  int current = 0;
  for (std::size_t row = 0; row < rows; ++row) {
    for (std::size_t tile = 0; tile < tiling.tiles_in_row; ++tile) {
      const std::size_t last = pixels - tiling.pixels;
      const std::size_t next = tile * tiling.pixels;  // that no tile has yet
      const std::size_t pixel = next < last ? next : last;
      waiting[count++] = {x + static_cast<std::ptrdiff_t>(row) * layout.row_stride +
                              static_cast<std::ptrdiff_t>(pixel) * layout.pixel_stride,
                          y + (row * pixels + pixel) * layout.output_stride * output_size(layout),
                          next - pixel};
      if (count == 2) {
        convolve_tiles<2>(layout, tiling, block, waiting, pending, sums[current]);
        count = 0;
        current ^= 1;
      }
    }
  }
  if (count == 1) {
    convolve_tiles<1>(layout, tiling, block, waiting, pending, sums[current]);
  }
  pending.advance(2 * kTileRows);
}

}  // namespace

void convolve(const ConvLayout& layout, ConvBlock& block, const std::uint8_t* x, std::size_t rows,
              std::size_t pixels, void* y) {
  Tiling tiling(layout, pixels);
  if (!tiling.worthwhile) {
    avx512_vnni::convolve(layout, block, x, rows, pixels, y);
    return;
  }
  configure(tiling);
  tiling.spread_prefetch(layout, block, rows);
  auto* out = static_cast<char*>(y);
  avx512_vnni::with_post_op(layout.output, [&]<PostOp kPostOp> {
    switch (block.vectors) {
      case 1:
        return convolve_block<1, kPostOp>(layout, tiling, block, x, rows, pixels, out);
      case 2:
        return convolve_block<2, kPostOp>(layout, tiling, block, x, rows, pixels, out);
      case 3:
        return convolve_block<3, kPostOp>(layout, tiling, block, x, rows, pixels, out);
      default:
        return convolve_block<4, kPostOp>(layout, tiling, block, x, rows, pixels, out);
    }
  });
  // Frees the operating system from saving the tiles of this thread.
  _tile_release();
}

}  // namespace pyquant::amx
