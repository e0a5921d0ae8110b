// Convolution as an implicit matrix product: a tile of output pixels times a block of channels
// stays in registers while the inputs of its taps pass by. Each step takes 4 bytes of inputs of
// every pixel, broadcast to all lanes, and the weights of these inputs for all channels. What is
// multiplied is Multiply's to say, so that avx2 and avx_vnni share this; all has internal linkage.
#pragma once

#include <utility>

#include "kernels/avx2/output.h"
#include "kernels/scalar/kernels.h"

namespace pyquant::avx2 {
namespace {

// Of the 16 registers, 12 hold accumulators, 3 or 4 a step's operands.
constexpr int kMaxPixels[] = {12, 6};  // by vectors - 1

template <int... kIndex>
using Indices = std::integer_sequence<int, kIndex...>;
template <int kCount>
using Range = std::make_integer_sequence<int, kCount>;

// The 4 bytes at a moving address and at up to 11 multiples of the stride from it, without a
// pointer for each.
struct Cursor {
  const std::uint8_t* first;  // pixel 0
  const std::uint8_t* sixth;  // pixel 6
  std::ptrdiff_t stride, stride3, stride5;

  template <int kPixel>
  PYQUANT_INLINE __m256i broadcast() const {
    const std::uint8_t* base = kPixel < 6 ? first : sixth;
    constexpr int kPart = kPixel % 6;
    __m256i value;
    if constexpr (kPart == 0) {
      asm volatile("vpbroadcastd (%1), %0" : "=x"(value) : "r"(base));
    } else if constexpr (kPart == 3) {
      asm volatile("vpbroadcastd (%1,%2,1), %0" : "=x"(value) : "r"(base), "r"(stride3));
    } else if constexpr (kPart == 5) {
      asm volatile("vpbroadcastd (%1,%2,1), %0" : "=x"(value) : "r"(base), "r"(stride5));
    } else {
      asm volatile("vpbroadcastd (%1,%2,%c3), %0"
                   : "=x"(value)
                   : "r"(base), "r"(stride), "i"(kPart));
    }
    return value;
  }
};

template <int kDistance>
PYQUANT_INLINE __m256i load(const void* address) {
  __m256i value;
  asm volatile("vmovdqu %c2(%1), %0" : "=x"(value) : "r"(address), "i"(kDistance));
  return value;
}

// In registers only as long as all indices are constants; see Tile in avx512_vnni.
template <int kVectors, int kPixels>
struct Tile {
  __m256i sums[kPixels][kVectors];
};

template <typename Multiply, int kPixel, int kVectors, int kPixels>
PYQUANT_INLINE void step_pixel(Tile<kVectors, kPixels>& tile, const Cursor& cursor,
                               const __m256i* w) {
  const __m256i x = cursor.broadcast<kPixel>();
  Multiply::add(tile.sums[kPixel][0], x, w[0]);
  if constexpr (kVectors > 1) {
    Multiply::add(tile.sums[kPixel][1], x, w[1]);
  }
}

template <typename Multiply, int kVectors, int kPixels, int... kIndex>
PYQUANT_INLINE void step(Tile<kVectors, kPixels>& tile, const Cursor& cursor,
                         const std::int8_t* weights, Indices<kIndex...>) {
  __m256i w[2];
  w[0] = load<0>(weights);
  if constexpr (kVectors > 1) {
    w[1] = load<32>(weights);
  }
  (step_pixel<Multiply, kIndex>(tile, cursor, w), ...);
}

template <int kVectors, int kPixels, int... kIndex>
PYQUANT_INLINE void start(Tile<kVectors, kPixels>& tile, const std::int32_t* offsets,
                          Indices<kIndex...>) {
  ((tile.sums[kIndex / kVectors][kIndex % kVectors] = load<32 * (kIndex % kVectors)>(offsets)),
   ...);
}

// Stores 4 / kVectors pixels from kFirst on, or as many as the tile has left.
template <int kFirst, int kVectors, int kPixels>
PYQUANT_INLINE void store_group(const Tile<kVectors, kPixels>& tile, const Packer& packer,
                                std::size_t channels, std::uint8_t* y, std::size_t stride) {
  constexpr auto kPixel = [](int pixel) {
    return kFirst + pixel < kPixels ? kFirst + pixel : kFirst;
  };
  y += kFirst * stride;
  if constexpr (kVectors == 2) {
    const auto& a = tile.sums[kFirst];
    const auto& b = tile.sums[kPixel(1)];
    // Each 8 bytes are of one pixel, in turns.
    const __m256i sorted = _mm256_permute4x64_epi64(
        packer.bytes(packer.words(a[0], 0, a[1], 1), packer.words(b[0], 0, b[1], 1)), 0xd8);
    store_bytes(y, _mm256_castsi256_si128(sorted), channels);
    if constexpr (kFirst + 1 < kPixels) {
      store_bytes(y + stride, _mm256_extracti128_si256(sorted, 1), channels);
    }
  } else {
    const __m256i packed =
        packer.bytes(packer.words(tile.sums[kFirst][0], 0, tile.sums[kPixel(1)][0], 0),
                     packer.words(tile.sums[kPixel(2)][0], 0, tile.sums[kPixel(3)][0], 0));
    // Each 4 bytes are.
    const __m256i sorted =
        _mm256_permutevar8x32_epi32(packed, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    const __m128i low = _mm256_castsi256_si128(sorted);
    const __m128i high = _mm256_extracti128_si256(sorted, 1);
    store_bytes(y, low, channels);
    if constexpr (kFirst + 1 < kPixels) {
      store_bytes(y + stride, _mm_srli_si128(low, 8), channels);
    }
    if constexpr (kFirst + 2 < kPixels) {
      store_bytes(y + 2 * stride, high, channels);
    }
    if constexpr (kFirst + 3 < kPixels) {
      store_bytes(y + 3 * stride, _mm_srli_si128(high, 8), channels);
    }
  }
}

template <int kVectors, int kPixels, int... kGroup>
PYQUANT_INLINE void store(const Tile<kVectors, kPixels>& tile, const Packer& packer,
                          std::size_t channels, std::uint8_t* y, std::size_t stride,
                          Indices<kGroup...>) {
  (store_group<kGroup * (4 / kVectors)>(tile, packer, channels, y, stride), ...);
}

// As they are, for OutputStage::Kind::kInt32.
template <int kVectors, int kPixels, int... kIndex>
PYQUANT_INLINE void store_sums(const Tile<kVectors, kPixels>& tile, std::size_t stride,
                               std::int32_t* y, Indices<kIndex...>) {
  (_mm256_storeu_si256(
       reinterpret_cast<__m256i*>(y + kIndex / kVectors * stride) + kIndex % kVectors,
       tile.sums[kIndex / kVectors][kIndex % kVectors]),
   ...);
}

template <int kVectors, int kPixels>
__attribute__((noinline)) void store_slowly(const Tile<kVectors, kPixels>& tile,
                                            const ConvLayout& layout, const ConvBlock& block,
                                            void* y) {
  const std::size_t size = layout.output.output_bytes();
  for (std::size_t pixel = 0; pixel < kPixels; ++pixel) {
    alignas(32) std::int32_t sums[kVectorChannels * kVectors];
    for (int i = 0; i < kVectors; ++i) {
      _mm256_store_si256(reinterpret_cast<__m256i*>(sums) + i, tile.sums[pixel][i]);
    }
    scalar::store_pixel(layout.output, sums, block.multipliers, kVectors, kVectorChannels,
                        block.channels,
                        static_cast<char*>(y) + pixel * layout.output_stride * size);
  }
}

template <typename Multiply, int kVectors, int kPixels>
__attribute__((noinline)) void convolve_tile(const ConvLayout& layout, ConvBlock& block,
                                             const std::uint8_t* x, void* y) {
  constexpr int kGroup = 4 / kVectors;
  Tile<kVectors, kPixels> tile;
  start(tile, block.offsets, Range<kVectors * kPixels>());
  const std::int8_t* weights = block.weights;
  const std::int8_t* next = block.prefetch;
  const std::ptrdiff_t stride = layout.pixel_stride;
  Cursor cursor = {x, x, stride, 3 * stride, 5 * stride};
  for (std::size_t tap = 0; tap < layout.tap_count; ++tap) {
    cursor.first = x + layout.taps[tap];
    cursor.sixth = cursor.first + 6 * stride;
    for (std::size_t left = layout.steps; left != 0; --left) {
      step<Multiply>(tile, cursor, weights, Range<kPixels>());
      _mm_prefetch(reinterpret_cast<const char*>(next), _MM_HINT_T1);
      next += 64;
      weights += 32 * kVectors;
      cursor.first += 4;
      cursor.sixth += 4;
    }
  }
  block.prefetch = next < block.prefetch_end ? next : block.weights;
  // Keeps what follows out of the loop's registers.
  asm volatile("" ::: "memory");
  if (layout.output.kind == OutputStage::Kind::kUInt8) {
    store(tile, Packer(layout.output, block.multipliers), block.channels,
          static_cast<std::uint8_t*>(y), layout.output_stride,
          Range<(kPixels + kGroup - 1) / kGroup>());
  } else if (layout.output.kind == OutputStage::Kind::kInt32) {
    store_sums(tile, layout.output_stride, static_cast<std::int32_t*>(y),
               Range<kVectors * kPixels>());
  } else {
    const Tile<kVectors, kPixels> copy = tile;
    store_slowly(copy, layout, block, y);
  }
}

using TileFunction = void (*)(const ConvLayout&, ConvBlock&, const std::uint8_t*, void*);

template <typename Multiply, int kVectors, typename Pixels>
struct Tiles;
template <typename Multiply, int kVectors, int... kIndex>
struct Tiles<Multiply, kVectors, Indices<kIndex...>> {
  static constexpr TileFunction kFunctions[] = {convolve_tile<Multiply, kVectors, kIndex + 1>...};
};

// One block; see convolve_each.
template <typename Multiply>
void convolve_tiles(const ConvLayout& layout, ConvBlock& block, std::size_t rows,
                    std::size_t pixels) {
  const std::uint8_t* x = block.x;
  void* y = block.y;
  const TileFunction* functions = block.vectors == 1
                                      ? Tiles<Multiply, 1, Range<kMaxPixels[0]>>::kFunctions
                                      : Tiles<Multiply, 2, Range<kMaxPixels[1]>>::kFunctions;
  const auto largest = static_cast<std::size_t>(kMaxPixels[block.vectors - 1]);
  const std::size_t size = layout.output.output_bytes();
  for (; rows != 0; --rows, x += layout.row_stride) {
    const std::uint8_t* pixel = x;
    std::size_t left = pixels;
    // Tiles of nearly the same size: a narrow one uses each weight that it loads less often.
    for (std::size_t tiles = (pixels + largest - 1) / largest; tiles != 0; --tiles) {
      const std::size_t count = (left + tiles - 1) / tiles;
      functions[count - 1](layout, block, pixel, y);
      pixel += static_cast<std::ptrdiff_t>(count) * layout.pixel_stride;
      y = static_cast<char*>(y) + count * layout.output_stride * size;
      left -= count;
    }
  }
}

}  // namespace
}  // namespace pyquant::avx2
