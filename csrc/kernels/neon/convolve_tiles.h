// Convolution as an implicit matrix product: a tile of output pixels times a block of channels
// stays in registers while the inputs of its taps pass by, four steps at a time. What is multiplied
// is Multiply's to say, so that neon and neon_dotprod share this; all has internal linkage.
#pragma once

#include <utility>

#include "kernels/neon/output.h"
#include "kernels/scalar/kernels.h"

namespace pyquant::neon {
namespace {

// So that accumulators, inputs and the weights of a step fit the 32 registers.
constexpr int kMaxPixels = 4;
constexpr std::size_t kChunk = 4;  // steps whose inputs fill a register

template <int kVectors, int kPixels>
struct Tile {
  int32x4_t sums[kPixels][kVectors];
};

template <typename Multiply, int kStep, int kVectors, int kPixels>
PYQUANT_INLINE void step(Tile<kVectors, kPixels>& tile, const int8x16_t* x,
                         const std::int8_t* weights) {
#pragma GCC unroll 4
  for (int vector = 0; vector < kVectors; ++vector) {
    const auto w = Multiply::load_weights(weights + 16 * (kVectors * kStep + vector));
#pragma GCC unroll 4
    for (int pixel = 0; pixel < kPixels; ++pixel) {
      Multiply::template add_step<kStep>(tile.sums[pixel][vector], x[pixel], w);
    }
  }
}

template <int kVectors, int kPixels>
__attribute__((noinline)) void store_slowly(const Tile<kVectors, kPixels>& tile,
                                            const ConvLayout& layout, const ConvBlock& block,
                                            void* y) {
  const std::size_t size = layout.output.output_bytes();
  for (std::size_t pixel = 0; pixel < kPixels; ++pixel) {
    std::int32_t sums[kVectorChannels * kVectors];
    for (int vector = 0; vector < kVectors; ++vector) {
      vst1q_s32(sums + 4 * vector, tile.sums[pixel][vector]);
    }
    scalar::store_pixel(layout.output, sums, block.multipliers, kVectors, kVectorChannels,
                        block.channels,
                        static_cast<char*>(y) + pixel * layout.output_stride * size);
  }
}

template <typename Multiply, int kVectors, int kPixels>
void convolve_tile(const ConvLayout& layout, const ConvBlock& block, const std::uint8_t* x,
                   void* y) {
  Tile<kVectors, kPixels> tile;
#pragma GCC unroll 4
  for (int pixel = 0; pixel < kPixels; ++pixel) {
#pragma GCC unroll 4
    for (int vector = 0; vector < kVectors; ++vector) {
      tile.sums[pixel][vector] = vld1q_s32(block.offsets + 4 * vector);
    }
  }
  const std::int8_t* weights = block.weights;
  for (std::size_t tap = 0; tap < layout.tap_count; ++tap) {
    const std::uint8_t* inputs = x + layout.taps[tap];
    std::size_t left = layout.steps;
    int8x16_t values[kPixels];
    for (; left >= kChunk; left -= kChunk) {
#pragma GCC unroll 4
      for (int pixel = 0; pixel < kPixels; ++pixel) {
        values[pixel] = Multiply::to_inputs(vld1q_u8(inputs + pixel * layout.pixel_stride));
      }
      step<Multiply, 0>(tile, values, weights);
      step<Multiply, 1>(tile, values, weights);
      step<Multiply, 2>(tile, values, weights);
      step<Multiply, 3>(tile, values, weights);
      inputs += 4 * kChunk;
      weights += 16 * kVectors * kChunk;
    }
    for (; left != 0; --left) {
#pragma GCC unroll 4
      for (int pixel = 0; pixel < kPixels; ++pixel) {
        const std::uint8_t* address = inputs + pixel * layout.pixel_stride;
        std::uint32_t word;
        __builtin_memcpy(&word, address, sizeof(word));
        values[pixel] = Multiply::to_inputs(vreinterpretq_u8_u32(vdupq_n_u32(word)));
      }
      step<Multiply, 0>(tile, values, weights);
      inputs += 4;
      weights += 16 * kVectors;
    }
  }
  if (layout.output.kind == OutputStage::Kind::kUInt8) {
    const Packer packer(layout.output, block.multipliers);
#pragma GCC unroll 4
    for (int pixel = 0; pixel < kPixels; ++pixel) {
      store_bytes(
          static_cast<std::uint8_t*>(y) + static_cast<std::size_t>(pixel) * layout.output_stride,
          packer.bytes<kVectors>(tile.sums[pixel]), block.channels);
    }
  } else if (layout.output.kind == OutputStage::Kind::kInt32) {
#pragma GCC unroll 4
    for (int pixel = 0; pixel < kPixels; ++pixel) {
      auto* sums =
          static_cast<std::int32_t*>(y) + static_cast<std::size_t>(pixel) * layout.output_stride;
#pragma GCC unroll 4
      for (int vector = 0; vector < kVectors; ++vector) {
        vst1q_s32(sums + 4 * vector, tile.sums[pixel][vector]);
      }
    }
  } else {
    // Of a copy, so that the tile itself needs no address and stays in registers.
    const Tile<kVectors, kPixels> copy = tile;
    store_slowly(copy, layout, block, y);
  }
}

using TileFunction = void (*)(const ConvLayout&, const ConvBlock&, const std::uint8_t*, void*);

template <typename Multiply, int kVectors>
constexpr TileFunction kTiles[kMaxPixels] = {
    convolve_tile<Multiply, kVectors, 1>, convolve_tile<Multiply, kVectors, 2>,
    convolve_tile<Multiply, kVectors, 3>, convolve_tile<Multiply, kVectors, 4>};

// One block; see convolve_each.
template <typename Multiply>
void convolve_tiles(const ConvLayout& layout, ConvBlock& block, std::size_t rows,
                    std::size_t pixels) {
  const std::uint8_t* x = block.x;
  void* y = block.y;
  constexpr const TileFunction* kFunctions[] = {kTiles<Multiply, 1>, kTiles<Multiply, 2>,
                                                kTiles<Multiply, 3>, kTiles<Multiply, 4>};
  const TileFunction* functions = kFunctions[block.vectors - 1];
  const std::size_t size = layout.output.output_bytes();
  for (; rows != 0; --rows, x += layout.row_stride) {
    const std::uint8_t* pixel = x;
    std::size_t left = pixels;
    // Tiles of nearly the same size: a narrow one uses each weight that it loads less often.
    for (std::size_t tiles = (pixels + kMaxPixels - 1) / kMaxPixels; tiles != 0; --tiles) {
      const std::size_t count = (left + tiles - 1) / tiles;
      functions[count - 1](layout, block, pixel, y);
      pixel += static_cast<std::ptrdiff_t>(count) * layout.pixel_stride;
      y = static_cast<char*>(y) + count * layout.output_stride * size;
      left -= count;
    }
  }
}

}  // namespace
}  // namespace pyquant::neon
