// Convolution with tile registers: up to 16 output pixels times 16 channels are one accumulator.
// An input tile holds up to 64 bytes of each pixel, read where they are in the image; a weight
// tile holds the weights of these bytes for one vector of channels.
#include "kernels/amx/kernels.h"
#include "kernels/amx/pending_stores.h"
#include "kernels/amx/tile_registers.h"

namespace pyquant::amx {
namespace {

// Registers 0 to 3 are accumulators, [pixel tile][vector]; 4 and 5 hold inputs, 6 and 7 weights.
void configure(const Tiling& tiling) {
  TileConfiguration configuration;
  for (int i = 0; i < 8; ++i) {
    configuration.rows[i] = static_cast<std::uint8_t>(i < 6 ? tiling.pixels : tiling.steps);
    configuration.row_bytes[i] =
        static_cast<std::uint16_t>(i == 4 || i == 5 ? 4 * tiling.steps : 64);
  }
  load(configuration);
}

// The accumulators of one or two tiles of pixels and of one or two vectors of the block's
// kVectors. sums: [pixel][vector][lane], 16 pixels a tile.
template <int kTiles, int kCount, int kVectors, PostOp kPostOp>
inline void multiply(const ConvLayout& layout, const Tiling& tiling, ConvBlock& block,
                     const TileInput* tiles, int vector, PendingStores<kVectors, kPostOp>& pending,
                     std::size_t share, std::int32_t* sums) {
  constexpr std::size_t kStride = 64 * kVectors;
  zero_tile<0>();
  if constexpr (kCount > 1) {
    zero_tile<1>();
  }
  if constexpr (kTiles > 1) {
    zero_tile<2>();
    if constexpr (kCount > 1) {
      zero_tile<3>();
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
      load_tile<6>(weights, kStride);
      load_tile<4>(x0, layout.pixel_stride);
      multiply_tiles<0, 4, 6>();
      if constexpr (kCount > 1) {
        load_tile<7>(weights + 64, kStride);
        multiply_tiles<1, 4, 7>();
      }
      if constexpr (kTiles > 1) {
        load_tile<5>(x1, layout.pixel_stride);
        multiply_tiles<2, 5, 6>();
        if constexpr (kCount > 1) {
          multiply_tiles<3, 5, 7>();
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
  store_tile<0>(target, kStride);
  if constexpr (kCount > 1) {
    store_tile<1>(target + 16, kStride);
  }
  if constexpr (kTiles > 1) {
    std::int32_t* second = target + 16 * kTileRows * kVectors;
    store_tile<2>(second, kStride);
    if constexpr (kCount > 1) {
      store_tile<3>(second + 16, kStride);
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
  constexpr std::size_t kSums = 2 * kTileRows * 16 * kVectors;
  alignas(64) std::int32_t sums[2 * kSums + kSumsSlack<kVectors>];
  PendingStores<kVectors, kPostOp> pending(layout, block, tiling.pixels);
  TileInput waiting[2];
  int count = 0;
  std::size_t current = 0;
  for (std::size_t row = 0; row < rows; ++row) {
    for (std::size_t tile = 0; tile < tiling.tiles_in_row; ++tile) {
      const std::size_t last = pixels - tiling.pixels;
      const std::size_t next = tile * tiling.pixels;  // that no tile has yet
      const std::size_t pixel = next < last ? next : last;
      waiting[count++] = {
          x + static_cast<std::ptrdiff_t>(row) * layout.row_stride +
              static_cast<std::ptrdiff_t>(pixel) * layout.pixel_stride,
          y + (row * pixels + pixel) * layout.output_stride * layout.output.output_bytes(),
          next - pixel};
      if (count == 2) {
        convolve_tiles<2>(layout, tiling, block, waiting, pending, sums + current * kSums);
        count = 0;
        current ^= 1;
      }
    }
  }
  if (count == 1) {
    convolve_tiles<1>(layout, tiling, block, waiting, pending, sums + current * kSums);
  }
  pending.finish();
}

}  // namespace

void convolve(const ConvLayout& layout, ConvBlock& block, const std::uint8_t* x, std::size_t rows,
              std::size_t pixels, void* y) {
  Tiling tiling(layout, pixels);
  if (!tiling.worthwhile) {
    avx512_vnni::convolve(layout, block, x, rows, pixels, y);
    return;
  }
  if (layout.tap_count * tiling.chunks == 1 && layout.output.post_op == PostOp::kNone) {
    convolve_resident(layout, block, x, rows, pixels, y);
    return;
  }
  configure(tiling);
  tiling.spread_prefetch(block, divide_up(rows * tiling.tiles_in_row, 2) *
                                    divide_up(block.vectors, 2) * layout.tap_count * tiling.chunks);
  avx512_vnni::with_post_op(layout.output, [&]<PostOp kPostOp>() {
    with_vectors(block, [&]<int kVectors>() {
      convolve_block<kVectors, kPostOp>(layout, tiling, block, x, rows, pixels,
                                        static_cast<char*>(y));
    });
  });
  release_tiles();
}

}  // namespace pyquant::amx
