// Convolution as an implicit matrix product: a tile of output pixels times a block of channels
// stays in registers while the inputs of its taps pass by. Each step takes 4 input bytes of every
// pixel, broadcast to all lanes, and the weights of these 4 inputs for all channels.
#include <utility>

#include "kernels/avx512_vnni/output.h"

namespace pyquant::avx512_vnni {
namespace {

// 28 of the 32 registers hold accumulators where the shape allows.
constexpr int kMaxPixels[] = {14, 14, 7, 7};  // by vectors - 1

template <int... kIndex>
using Indices = std::integer_sequence<int, kIndex...>;
template <int kCount>
using Range = std::make_integer_sequence<int, kCount>;

// The 4 bytes at a moving address and at up to 13 multiples of the stride from it, without a
// pointer for each.
struct Cursor {
  const std::uint8_t* first;    // pixel 0
  const std::uint8_t* seventh;  // pixel 7
  std::ptrdiff_t stride, stride3, stride5;

  template <int kPixel>
  PYQUANT_INLINE __m512i broadcast() const {
    const std::uint8_t* base = kPixel < 7 ? first : seventh;
    constexpr int kPart = kPixel % 7;
    __m512i value;
    if constexpr (kPart == 0) {
      asm volatile("vpbroadcastd (%1), %0" : "=v"(value) : "r"(base));
    } else if constexpr (kPart == 3 || kPart == 6) {
      asm volatile("vpbroadcastd (%1,%2,%c3), %0"
                   : "=v"(value)
                   : "r"(base), "r"(stride3), "i"(kPart / 3));
    } else if constexpr (kPart == 5) {
      asm volatile("vpbroadcastd (%1,%2,1), %0" : "=v"(value) : "r"(base), "r"(stride5));
    } else {
      asm volatile("vpbroadcastd (%1,%2,%c3), %0"
                   : "=v"(value)
                   : "r"(base), "r"(stride), "i"(kPart));
    }
    return value;
  }
};

template <int kVectors>
struct Pixel {
  __m512i sums[kVectors];
};

// Its elements stay in registers only if all indices are constants when GCC 12 takes it apart,
// which is before it unrolls loops: in one loop over them, and each multiplication stores its sum.
template <int kVectors, int kPixels>
struct Tile {
  Pixel<kVectors> pixels[kPixels];
};

// The last of four weight vectors stays in memory: registers have run out.
template <int kVectors, int kPixel, int kPixels>
PYQUANT_INLINE void step_pixel(Tile<kVectors, kPixels>& tile, const Cursor& cursor,
                               const std::int8_t* weights, const __m512i* w) {
  const __m512i x = cursor.broadcast<kPixel>();
  Pixel<kVectors>& pixel = tile.pixels[kPixel];
  multiply_add(pixel.sums[0], x, w[0]);
  if constexpr (kVectors > 1) {
    multiply_add(pixel.sums[1], x, w[1]);
  }
  if constexpr (kVectors > 2) {
    multiply_add(pixel.sums[2], x, w[2]);
  }
  if constexpr (kVectors > 3) {
    multiply_add<192>(pixel.sums[3], x, weights);
  }
}

template <int kVectors, int kPixels, int... kIndex>
PYQUANT_INLINE void step(Tile<kVectors, kPixels>& tile, const Cursor& cursor,
                         const std::int8_t* weights, Indices<kIndex...>) {
  __m512i w[3];
  w[0] = load<0>(weights);
  if constexpr (kVectors > 1) {
    w[1] = load<64>(weights);
  }
  if constexpr (kVectors > 2) {
    w[2] = load<128>(weights);
  }
  (step_pixel<kVectors, kIndex>(tile, cursor, weights, w), ...);
}

// Copies are free, and loads would keep the load ports busy.
template <int kVectors, int kPixels, int... kIndex>
PYQUANT_INLINE void start(Tile<kVectors, kPixels>& tile, const std::int32_t* offsets,
                          Indices<kIndex...>) {
  ((tile.pixels[kIndex / kVectors].sums[kIndex % kVectors] =
        kIndex < kVectors ? load<64 * (kIndex % kVectors)>(offsets)
                          : tile.pixels[0].sums[kIndex % kVectors]),
   ...);
}

// A vector of all pixels, so that its constants are loaded once.
template <bool kFloatSums, int kVector, int kVectors, int kPixels, int... kPixel>
PYQUANT_INLINE void scale_vector(Tile<kVectors, kPixels>& tile, const ScalesInMemory& scales,
                                 Indices<kPixel...>) {
  const __m512 multiplier = scales.multiplier(kVector);
  const __m512 shift = kFloatSums ? scales.shift(kVector) : multiplier;
  ((tile.pixels[kPixel].sums[kVector] = _mm512_castps_si512(
        scale<kFloatSums>(tile.pixels[kPixel].sums[kVector], multiplier, shift))),
   ...);
}

template <bool kFloatSums, int kVectors, int kPixels, int... kVector>
PYQUANT_INLINE void scale_vectors(Tile<kVectors, kPixels>& tile, const ScalesInMemory& scales,
                                  Indices<kVector...>) {
  (scale_vector<kFloatSums, kVector>(tile, scales, Range<kPixels>()), ...);
}

// The value of number kIndex that a Packer stores together with that of pixel kFirst.
template <int kFirst, int kIndex, int kVectors, int kPixels>
PYQUANT_INLINE __m512 value(const Tile<kVectors, kPixels>& tile) {
  constexpr int kPixel = kFirst + kIndex / kVectors;
  if constexpr (kVectors == 3 && kIndex == 3) {
    return _mm512_setzero_ps();
  } else {
    return _mm512_castsi512_ps(
        tile.pixels[kPixel < kPixels ? kPixel : kFirst].sums[kIndex % kVectors]);
  }
}

template <int kFirst, int kVectors, int kPixels, PostOp kPostOp>
PYQUANT_INLINE void store_group(const Tile<kVectors, kPixels>& tile,
                                const Packer<kVectors, kPostOp>& packer, std::uint8_t* y,
                                std::size_t stride) {
  constexpr int kGroup = kPixelsInStore<kVectors>;
  constexpr int kCount = kPixels - kFirst < kGroup ? kPixels - kFirst : kGroup;
  packer.store({value<kFirst, 0>(tile), value<kFirst, 1>(tile), value<kFirst, 2>(tile),
                value<kFirst, 3>(tile)},
               kCount, y + kFirst * stride, stride);
}

template <PostOp kPostOp, int kVectors, int kPixels, int... kIndex>
PYQUANT_INLINE void store(const Tile<kVectors, kPixels>& tile, const ConvLayout& layout,
                          const ConvBlock& block, std::uint8_t* y, Indices<kIndex...>) {
  const Packer<kVectors, kPostOp> packer(layout.output, block.channels);
  (store_group<kIndex * kPixelsInStore<kVectors>>(tile, packer, y, layout.output_stride), ...);
}

// As they are, for OutputStage::Kind::kInt32.
template <int kVectors, int kPixels, int... kIndex>
PYQUANT_INLINE void store_sums(const Tile<kVectors, kPixels>& tile, std::size_t stride,
                               std::int32_t* y, Indices<kIndex...>) {
  (_mm512_storeu_si512(y + kIndex / kVectors * stride + 16 * (kIndex % kVectors),
                       tile.pixels[kIndex / kVectors].sums[kIndex % kVectors]),
   ...);
}

template <int kVectors, int kPixels>
__attribute__((noinline)) void store_slowly(const Tile<kVectors, kPixels>& tile,
                                            const ConvLayout& layout, const ConvBlock& block,
                                            void* y) {
  const std::size_t size = layout.output.output_bytes();
  for (std::size_t pixel = 0; pixel < kPixels; ++pixel) {
    alignas(64) std::int32_t sums[16 * kVectors];
    for (int i = 0; i < kVectors; ++i) {
      _mm512_store_si512(sums + 16 * i, tile.pixels[pixel].sums[i]);
    }
    store_pixel(layout.output, sums, block.multipliers, kVectors, block.channels,
                static_cast<char*>(y) + pixel * layout.output_stride * size);
  }
}

// The other operands of the next tile: what comes from memory would hold up its stores.
template <int kPixels>
PYQUANT_INLINE void fetch_other(const ConvLayout& layout, const std::uint8_t* y) {
  const std::uint8_t* other =
      y + layout.output.add.distance + kPixels * static_cast<std::ptrdiff_t>(layout.output_stride);
  for (int pixel = 0; pixel < kPixels; ++pixel, other += layout.output_stride) {
    _mm_prefetch(reinterpret_cast<const char*>(other), _MM_HINT_T0);
  }
}

// kFetch: whether weights of the next block are fetched, a line in each step. It costs 2 % where
// the others are in the first-level cache.
template <bool kFetch, int kVectors, int kPixels>
PYQUANT_INLINE void multiply(Tile<kVectors, kPixels>& tile, const ConvLayout& layout,
                             const std::uint8_t* x, const std::int8_t* weights,
                             const std::int8_t* next) {
  const std::ptrdiff_t stride = layout.pixel_stride;
  Cursor cursor = {x, x, stride, 3 * stride, 5 * stride};
  for (std::size_t tap = 0; tap < layout.tap_count; ++tap) {
    cursor.first = x + layout.taps[tap];
    cursor.seventh = cursor.first + 7 * stride;
    for (std::size_t left = layout.steps; left != 0; --left) {
      step(tile, cursor, weights, Range<kPixels>());
      if constexpr (kFetch) {
        _mm_prefetch(reinterpret_cast<const char*>(next), _MM_HINT_T1);
        next += 64;
      }
      weights += 64 * kVectors;
      cursor.first += 4;
      cursor.seventh += 4;
    }
  }
}

template <int kVectors, int kPixels>
PYQUANT_INLINE void convolve_tile(const ConvLayout& layout, ConvBlock& block, const std::uint8_t* x,
                                  void* y) {
  constexpr int kGroups = (kPixels + kPixelsInStore<kVectors> - 1) / kPixelsInStore<kVectors>;
  Tile<kVectors, kPixels> tile;
  start(tile, block.offsets, Range<kVectors * kPixels>());
  if (layout.output.post_op == PostOp::kAdd) {
    fetch_other<kPixels>(layout, static_cast<const std::uint8_t*>(y));
  }
  if (block.prefetch < block.prefetch_end) {
    multiply<true>(tile, layout, x, block.weights, block.prefetch);
    block.prefetch += 64 * layout.tap_count * layout.steps;
  } else {
    multiply<false>(tile, layout, x, block.weights, nullptr);
  }
  // Keeps what follows out of the loop's registers.
  asm volatile("" ::: "memory");
  if (layout.output.kind == OutputStage::Kind::kUInt8) {
    const ScalesInMemory scales = {block.multipliers, block.shifts};
    if (scales.float_sums()) {
      scale_vectors<true>(tile, scales, Range<kVectors>());
    } else {
      scale_vectors<false>(tile, scales, Range<kVectors>());
    }
    // Not with_post_op(): what a lambda captures GCC 12 keeps in memory.
    auto* out = static_cast<std::uint8_t*>(y);
    switch (layout.output.post_op) {
      case PostOp::kNone:
        store<PostOp::kNone>(tile, layout, block, out, Range<kGroups>());
        break;
      case PostOp::kTable:
        store<PostOp::kTable>(tile, layout, block, out, Range<kGroups>());
        break;
      case PostOp::kAdd:
        store<PostOp::kAdd>(tile, layout, block, out, Range<kGroups>());
        break;
    }
  } else if (layout.output.kind == OutputStage::Kind::kInt32) {
    store_sums(tile, layout.output_stride, static_cast<std::int32_t*>(y),
               Range<kVectors * kPixels>());
  } else {
    const Tile<kVectors, kPixels> copy = tile;
    store_slowly(copy, layout, block, y);
  }
}

// Tiles that follow each other.
template <int kVectors, int kPixels>
__attribute__((noinline)) void convolve_tiles(const ConvLayout& layout, ConvBlock& block,
                                              const std::uint8_t* x, void* y, std::size_t tiles) {
  const std::size_t output_bytes = kPixels * layout.output_stride * layout.output.output_bytes();
  for (; tiles != 0; --tiles) {
    convolve_tile<kVectors, kPixels>(layout, block, x, y);
    x += kPixels * layout.pixel_stride;
    y = static_cast<char*>(y) + output_bytes;
  }
}

using TilesFunction = void (*)(const ConvLayout&, ConvBlock&, const std::uint8_t*, void*,
                               std::size_t);

template <int kVectors, typename Pixels>
struct Tiles;
template <int kVectors, int... kIndex>
struct Tiles<kVectors, Indices<kIndex...>> {
  static constexpr TilesFunction kFunctions[] = {convolve_tiles<kVectors, kIndex + 1>...};
};

constexpr const TilesFunction* kTiles[] = {
    Tiles<1, Range<kMaxPixels[0]>>::kFunctions, Tiles<2, Range<kMaxPixels[1]>>::kFunctions,
    Tiles<3, Range<kMaxPixels[2]>>::kFunctions, Tiles<4, Range<kMaxPixels[3]>>::kFunctions};

}  // namespace

void convolve_block(const ConvLayout& layout, ConvBlock& block, std::size_t rows,
                    std::size_t pixels) {
  const TilesFunction* functions = kTiles[block.vectors - 1];
  const auto most = static_cast<std::size_t>(kMaxPixels[block.vectors - 1]);
  // Tiles of nearly the same size: a narrow one cannot hide the latency of its multiplications.
  const std::size_t tiles = (pixels + most - 1) / most;
  const std::size_t narrow = pixels / tiles;
  const std::size_t wide_tiles = pixels % tiles;
  const std::size_t wide_pixels = wide_tiles * (narrow + 1);
  const std::size_t pixel_bytes = layout.output_stride * layout.output.output_bytes();
  const std::uint8_t* x = block.x;
  auto* y = static_cast<char*>(block.y);
  for (; rows != 0; --rows, x += layout.row_stride, y += pixels * pixel_bytes) {
    if (wide_tiles != 0) {
      functions[narrow](layout, block, x, y, wide_tiles);
    }
    functions[narrow - 1](layout, block,
                          x + static_cast<std::ptrdiff_t>(wide_pixels) * layout.pixel_stride,
                          y + wide_pixels * pixel_bytes, tiles - wide_tiles);
  }
}

}  // namespace pyquant::avx512_vnni
