// The stores of finished tiles. Everything here has internal linkage; see rounding.h in avx2.
#pragma once

#include "kernels/amx/tiling.h"
#include "kernels/avx512_vnni/output.h"

namespace pyquant::amx {
namespace {

using avx512_vnni::Packer;
using avx512_vnni::PostOp;

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

// Sums behind those of the last tile, which are read where a store takes several pixels, and not
// used.
template <int kVectors>
constexpr std::size_t kSumsSlack =
    (avx512_vnni::kPixelsInStore<kVectors> - 1) * std::size_t{16 * kVectors};

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

  // sums: [tile][pixel][vector][lane], 16 pixels a tile, with kSumsSlack behind them.
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

  void finish() { advance(2 * kTileRows); }

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
    const std::size_t size = layout_.output.output_bytes();
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

// Calls function.operator()<vectors of the block>().
template <typename Function>
void with_vectors(const ConvBlock& block, Function function) {
  switch (block.vectors) {
    case 1:
      return function.template operator()<1>();
    case 2:
      return function.template operator()<2>();
    case 3:
      return function.template operator()<3>();
    default:
      return function.template operator()<4>();
  }
}

}  // namespace
}  // namespace pyquant::amx
