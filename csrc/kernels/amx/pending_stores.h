// The stores of finished tiles, done a few pixels at a time between the multiplications of the next
// ones, which leave the vector units idle. All of it is inlined, so that constants stay in
// registers: what holds the stores back is how much they load. Everything here has internal
// linkage; see rounding.h in avx2.
#pragma once

#include "kernels/amx/tiling.h"
#include "kernels/avx512_vnni/output.h"

namespace pyquant::amx {
namespace {

using avx512_vnni::Packer;
using avx512_vnni::PostOp;
using avx512_vnni::ScalesInRegisters;
using avx512_vnni::unrolled;

// Stores kPixels pixels of OutputStage::Kind::kUInt8.
template <int kVectors, PostOp kPostOp>
class StoreBytes {
 public:
  static constexpr int kPixels = avx512_vnni::kPixelsInStore<kVectors>;

  PYQUANT_INLINE StoreBytes(const ConvLayout& layout, const ConvBlock& block)
      : block_(&block),
        scales_(block.offsets, block.multipliers, block.shifts),
        packer_(layout.output, block.channels),
        pixel_stride_(layout.output_stride) {}

  // From now on.
  PYQUANT_INLINE void use(const ConvBlock& block) {
    if (&block != block_) {
      block_ = &block;
      scales_ = {block.offsets, block.multipliers, block.shifts};
      packer_.set_channels(block.channels);
    }
  }

  // sums: [pixel][vector][lane] of kPixels pixels, the first `count` of which are stored. The tiles
  // begin at zero: loading the offsets into them takes longer than adding them here.
  PYQUANT_INLINE void operator()(const std::int32_t* sums, int count, char* y) const {
    __m512i values[kPixels * kVectors];
    unrolled<kPixels * kVectors>([&]<int i>() __attribute__((always_inline)) {
      values[i] = _mm512_add_epi32(scales_.offsets[i % kVectors], _mm512_load_si512(sums + 16 * i));
    });
    packer_.store(values, scales_, count, reinterpret_cast<std::uint8_t*>(y), pixel_stride_);
  }

 private:
  const ConvBlock* block_;
  ScalesInRegisters<kVectors> scales_;
  Packer<kVectors, kPostOp> packer_;
  std::size_t pixel_stride_;
};

// Stores a pixel of any other kind.
template <int kVectors>
class StoreOther {
 public:
  static constexpr int kPixels = 1;

  StoreOther(const ConvLayout& layout, const ConvBlock& block) : layout_(layout), block_(&block) {}

  void use(const ConvBlock& block) { block_ = &block; }

  void operator()(const std::int32_t* sums, int /*count*/, char* y) const {
    alignas(64) std::int32_t values[16 * kVectors];
    const bool raw = layout_.output.kind == OutputStage::Kind::kInt32;
    std::int32_t* target = raw ? reinterpret_cast<std::int32_t*>(y) : values;
    unrolled<kVectors>([&]<int i>() {
      _mm512_storeu_si512(target + 16 * i,
                          _mm512_add_epi32(_mm512_load_si512(block_->offsets + 16 * i),
                                           _mm512_load_si512(sums + 16 * i)));
    });
    if (!raw) {
      avx512_vnni::store_pixel(layout_.output, values, block_->multipliers, kVectors,
                               block_->channels, y);
    }
  }

 private:
  const ConvLayout& layout_;
  const ConvBlock* block_;
};

// Of two tiles, one after the other.
template <int kVectors, typename Store>
class PendingStores {
 public:
  PYQUANT_INLINE PendingStores(const ConvLayout& layout, const ConvBlock& block,
                               std::size_t tile_pixels)
      : store_(layout, block),
        pixel_bytes_(layout.output_stride * layout.output.output_bytes()),
        tile_pixels_(tile_pixels) {}

  // int32 sums of two tiles, [tile][pixel][vector][lane] with 16 pixels a tile; behind the last one
  // are more, which are read where a store takes several pixels, and not used.
  static constexpr std::size_t kSums = 2 * kTileRows * 16 * kVectors;
  static constexpr std::size_t kSumsSlack = (Store::kPixels - 1) * std::size_t{16 * kVectors};

  // How far to advance in each of `times` equal parts of the work.
  std::size_t share(std::size_t times) const {
    return divide_up(2 * divide_up(tile_pixels_, Store::kPixels), times);
  }

  // The tiles are stored next. What was pending must be finished.
  PYQUANT_INLINE void start(const TilePair& pair, const std::int32_t* sums) {
    store_.use(*pair.block);
    tile_ = rest_of(pair, 0, sums);
    next_ = rest_of(pair, 1, sums);
  }

  PYQUANT_INLINE void advance(std::size_t steps) {
    for (; steps != 0; --steps) {
      if (tile_.pixels <= 0) {
        if (next_.pixels <= 0) {
          return;
        }
        tile_ = next_;
        next_.pixels = 0;
      }
      store_(tile_.sums, tile_.pixels, tile_.y);
      tile_.sums += 16 * kVectors * Store::kPixels;
      tile_.y += Store::kPixels * pixel_bytes_;
      tile_.pixels -= Store::kPixels;
    }
  }

  PYQUANT_INLINE void finish() { advance(2 * kTileRows); }

 private:
  // What is left to be stored of a tile.
  struct Rest {
    int pixels = 0;
    const std::int32_t* sums = nullptr;
    char* y = nullptr;
  };

  PYQUANT_INLINE Rest rest_of(const TilePair& pair, int index, const std::int32_t* sums) const {
    const TileInput& tile = pair.tiles[index];
    const std::size_t row = static_cast<std::size_t>(index) * kTileRows + tile.first;
    return {index < pair.count ? static_cast<int>(tile_pixels_ - tile.first) : 0,
            sums + 16 * kVectors * row, tile.y + tile.first * pixel_bytes_};
  }

  Store store_;
  std::size_t pixel_bytes_;
  std::size_t tile_pixels_;
  Rest tile_, next_;
};

}  // namespace
}  // namespace pyquant::amx
