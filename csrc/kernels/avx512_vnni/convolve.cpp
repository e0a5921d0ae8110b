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

template <int kVectors, int kPixels, int... kIndex>
PYQUANT_INLINE void start(Tile<kVectors, kPixels>& tile, const std::int32_t* offsets,
                          Indices<kIndex...>) {
  ((tile.pixels[kIndex / kVectors].sums[kIndex % kVectors] =
        load<64 * (kIndex % kVectors)>(offsets)),
   ...);
}

template <int kFirst, int kVectors, int kPixels, PostOp kPostOp, int... kIndex>
PYQUANT_INLINE void store_group(const Tile<kVectors, kPixels>& tile,
                                const Packer<kVectors, kPostOp>& packer,
                                const ScalesInMemory& scales, std::uint8_t* y, std::size_t stride,
                                Indices<kIndex...>) {
  constexpr int kGroup = kPixelsInStore<kVectors>;
  constexpr int kCount = kPixels - kFirst < kGroup ? kPixels - kFirst : kGroup;
  constexpr auto kPixel = [](int pixel) { return pixel < kCount ? kFirst + pixel : kFirst; };
  const __m512i sums[] = {tile.pixels[kPixel(kIndex / kVectors)].sums[kIndex % kVectors]...};
  packer.store(sums, scales, kCount, y + kFirst * stride, stride);
}

template <PostOp kPostOp, int kVectors, int kPixels, int... kIndex>
PYQUANT_INLINE void store(const Tile<kVectors, kPixels>& tile, const ConvLayout& layout,
                          const ConvBlock& block, std::uint8_t* y, Indices<kIndex...>) {
  const Packer<kVectors, kPostOp> packer(layout.output, block.channels);
  const ScalesInMemory scales = {block.multipliers, block.shifts};
  constexpr int kGroup = kPixelsInStore<kVectors>;
  (store_group<kIndex * kGroup>(tile, packer, scales, y, layout.output_stride,
                                Range<kGroup * kVectors>()),
   ...);
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

template <int kVectors, int kPixels>
__attribute__((noinline)) void convolve_tile(const ConvLayout& layout, ConvBlock& block,
                                             const std::uint8_t* x, void* y) {
  constexpr int kGroups = (kPixels + kPixelsInStore<kVectors> - 1) / kPixelsInStore<kVectors>;
  Tile<kVectors, kPixels> tile;
  start(tile, block.offsets, Range<kVectors * kPixels>());
  const std::int8_t* weights = block.weights;
  const std::int8_t* next = block.prefetch;
  const std::ptrdiff_t stride = layout.pixel_stride;
  Cursor cursor = {x, x, stride, 3 * stride, 5 * stride};
  for (std::size_t tap = 0; tap < layout.tap_count; ++tap) {
    cursor.first = x + layout.taps[tap];
    cursor.seventh = cursor.first + 7 * stride;
    for (std::size_t left = layout.steps; left != 0; --left) {
      step(tile, cursor, weights, Range<kPixels>());
      _mm_prefetch(reinterpret_cast<const char*>(next), _MM_HINT_T1);
      next += 64;
      weights += 64 * kVectors;
      cursor.first += 4;
      cursor.seventh += 4;
    }
  }
  block.prefetch = next < block.prefetch_end ? next : block.weights;
  // Keeps what follows out of the loop's registers.
  asm volatile("" ::: "memory");
  if (layout.output.kind == OutputStage::Kind::kUInt8) {
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

using TileFunction = void (*)(const ConvLayout&, ConvBlock&, const std::uint8_t*, void*);

template <int kVectors, typename Pixels>
struct Tiles;
template <int kVectors, int... kIndex>
struct Tiles<kVectors, Indices<kIndex...>> {
  static constexpr TileFunction kFunctions[] = {convolve_tile<kVectors, kIndex + 1>...};
};

constexpr const TileFunction* kTiles[] = {
    Tiles<1, Range<kMaxPixels[0]>>::kFunctions, Tiles<2, Range<kMaxPixels[1]>>::kFunctions,
    Tiles<3, Range<kMaxPixels[2]>>::kFunctions, Tiles<4, Range<kMaxPixels[3]>>::kFunctions};

}  // namespace

void convolve_block(const ConvLayout& layout, ConvBlock& block, std::size_t rows,
                    std::size_t pixels) {
  const std::uint8_t* x = block.x;
  void* y = block.y;
  const TileFunction* functions = kTiles[block.vectors - 1];
  const auto largest = static_cast<std::size_t>(kMaxPixels[block.vectors - 1]);
  const std::size_t size = layout.output.output_bytes();
  for (; rows != 0; --rows, x += layout.row_stride) {
    const std::uint8_t* pixel = x;
    std::size_t left = pixels;
    // Tiles of nearly the same size: a narrow one cannot hide the latency of its multiplications.
    for (std::size_t tiles = (pixels + largest - 1) / largest; tiles != 0; --tiles) {
      const std::size_t count = (left + tiles - 1) / tiles;
      functions[count - 1](layout, block, pixel, y);
      pixel += static_cast<std::ptrdiff_t>(count) * layout.pixel_stride;
      y = static_cast<char*>(y) + count * layout.output_stride * size;
      left -= count;
    }
  }
}

}  // namespace pyquant::avx512_vnni
