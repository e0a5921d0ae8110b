// Convolution with tile registers: up to 16 output pixels times 16 channels are one accumulator.
// An input tile holds up to 64 bytes of each pixel, read where they are in the image; a weight
// tile holds the weights of these bytes for one vector of channels.
//
// Two tiles of pixels times two vectors of channels are multiplied at a time. A multiplication's
// result comes late, and what stores it blocks the ones behind it: accumulators stay in their
// registers until the next ones need these, each for one multiplication, and only then go to
// memory, from where PendingStores takes them (a third of the time less than storing all four at
// the end, with 96 inputs).
#include "kernels/amx/kernels.h"
#include "kernels/amx/pending_stores.h"
#include "kernels/amx/tile_registers.h"

namespace pyquant::amx {
namespace {

// Registers 0 to 3 are accumulators, 4 and 5 hold inputs, 6 and 7 weights.
void configure(const Tiling& tiling) {
  TileConfiguration configuration;
  for (int i = 0; i < 8; ++i) {
    configuration.rows[i] = static_cast<std::uint8_t>(i < 6 ? tiling.pixels : tiling.steps);
    configuration.row_bytes[i] =
        static_cast<std::uint16_t>(i == 4 || i == 5 ? 4 * tiling.steps : 64);
  }
  load(configuration);
}

// The accumulators of two tiles and of one or two of a block's kVectors vectors, from kFirst on:
// parts are [tile][vector], each in the register of its number.
template <int kVectors, int kFirst>
struct Accumulators {
  static constexpr int kCount = kVectors - kFirst < 2 ? 1 : 2;
  static constexpr int kParts = 2 * kCount;

  // sums: [tile][pixel][vector][lane] of the block.
  template <int kPart>
  static PYQUANT_INLINE void store(std::int32_t* sums) {
    if constexpr (kPart < kParts) {
      constexpr std::size_t kPlace =
          16 * (kPart / kCount * kTileRows * kVectors + kFirst + kPart % kCount);
      store_tile<kPart>(sums + kPlace, 64 * kVectors);
    }
  }
  template <int kPart>
  static PYQUANT_INLINE void store_from(std::int32_t* sums) {
    if constexpr (kPart < kParts) {
      store<kPart>(sums);
      store_from<kPart + 1>(sums);
    }
  }
};

struct NoAccumulators {
  static constexpr int kParts = 0;
};

// What one input tile of each of two tiles of pixels is multiplied with.
struct Operands {
  const std::uint8_t* x[2];
  std::ptrdiff_t pixel_stride;
  const std::int8_t* weights;  // of the first vector
};

// Adds the products to the accumulators of kFirst from kPart on. With Stored, which were in these
// registers and go to `stored`, they begin at zero.
template <int kVectors, int kFirst, typename Stored, int kPart = 0, typename Pending>
PYQUANT_INLINE void multiply(const Operands& operands, Pending& pending, std::size_t share,
                             std::int32_t* stored) {
  using Sums = Accumulators<kVectors, kFirst>;
  if constexpr (kPart < Sums::kParts) {
    constexpr int kTile = kPart / Sums::kCount;
    constexpr int kVector = kPart % Sums::kCount;
    if constexpr (kVector == 0) {
      load_tile<4 + kTile>(operands.x[kTile], operands.pixel_stride);
    }
    if constexpr (kTile == 0) {
      load_tile<6 + kVector>(operands.weights + 64 * kVector, 64 * kVectors);
    }
    if constexpr (Stored::kParts != 0) {
      Stored::template store<kPart>(stored);
      zero_tile<kPart>();
    }
    multiply_tiles<kPart, 4 + kTile, 6 + kVector>();
    pending.advance(share);
    multiply<kVectors, kFirst, Stored, kPart + 1>(operands, pending, share, stored);
  } else if constexpr (Stored::kParts != 0) {
    Stored::template store_from<kPart>(stored);
  }
}

// Blocks of kVectors vectors; the stores of one go on while the next is multiplied.
template <int kVectors, typename Store>
void convolve_blocks(const ConvLayout& layout, const Tiling& tiling, const ConvBlock* blocks,
                     std::size_t block_count, std::size_t rows, std::size_t pixels) {
  using Pending = PendingStores<kVectors, Store>;
  using Last = Accumulators<kVectors, kVectors <= 2 ? 0 : 2>;
  // Of the tiles being multiplied and of those before, which are stored meanwhile.
  alignas(64) std::int32_t sums[2 * Pending::kSums + Pending::kSumsSlack];
  std::int32_t* current = sums;
  std::int32_t* previous = sums + Pending::kSums;
  TilePair pair = {blocks}, previous_pair = {blocks};
  Pending pending(layout, *blocks, tiling.pixels);
  const std::size_t share = pending.share(2 * kVectors * layout.tap_count * tiling.chunks);
  const std::size_t tile_count = rows * tiling.tiles_in_row;
  // Times that weights are fetched while a block is multiplied.
  const std::size_t fetches = divide_up(tile_count, 2) * divide_up(std::size_t{kVectors}, 2) *
                              layout.tap_count * tiling.chunks;
  const std::int8_t* next = nullptr;
  std::size_t lines = 0;
  const auto prefetch = [&]() __attribute__((always_inline)) {
    for (std::size_t line = 0; line < lines; ++line, next += 64) {
      _mm_prefetch(reinterpret_cast<const char*>(next), _MM_HINT_T1);
    }
  };
  // All inputs times the vectors from kFirst on. `Stored` are the accumulators that were multiplied
  // before, and `stored` their sums.
  const auto multiply_all =
      [&]<int kFirst, typename Stored>(std::int32_t* stored) __attribute__((always_inline)) {
        const std::uint8_t* const x[2] = {pair.tiles[0].x, pair.tiles[1].x};
        Operands operands = {{x[0] + layout.taps[0], x[1] + layout.taps[0]},
                             layout.pixel_stride,
                             pair.block->weights + 64 * kFirst};
        prefetch();
        multiply<kVectors, kFirst, Stored>(operands, pending, share, stored);
        if constexpr (kFirst == 0) {
          pending.start(previous_pair, stored);
        }
        std::size_t chunk = 1;
        for (std::size_t tap = 0; tap < layout.tap_count; ++tap, chunk = 0) {
          const std::size_t offset = 4 * tiling.steps * chunk;
          operands.x[0] = x[0] + layout.taps[tap] + offset;
          operands.x[1] = x[1] + layout.taps[tap] + offset;
          for (; chunk < tiling.chunks; ++chunk) {
            operands.weights += 64 * kVectors * tiling.steps;
            prefetch();
            multiply<kVectors, kFirst, NoAccumulators>(operands, pending, share, nullptr);
            operands.x[0] += 4 * tiling.steps;
            operands.x[1] += 4 * tiling.steps;
          }
        }
      };
  for (const ConvBlock* block = blocks; block != blocks + block_count; ++block) {
    next = block->prefetch;
    lines = divide_up(static_cast<std::size_t>(block->prefetch_end - next) / 64, fetches);
    TileSequence sequence(layout, tiling, block->x, pixels, static_cast<char*>(block->y));
    for (std::size_t left = tile_count; left != 0;) {
      pair.block = block;
      pair.count = left == 1 ? 1 : 2;
      pair.tiles[0] = sequence.next();
      pair.tiles[1] = left == 1 ? pair.tiles[0] : sequence.next();
      left -= static_cast<std::size_t>(pair.count);
      multiply_all.template operator()<0, Last>(previous);
      if constexpr (kVectors > 2) {
        multiply_all.template operator()<2, Accumulators<kVectors, 0>>(current);
      }
      previous_pair = pair;
      std::int32_t* stored = previous;
      previous = current;
      current = stored;
    }
  }
  pending.finish();
  Last::template store_from<0>(previous);
  pending.start(previous_pair, previous);
  pending.finish();
}

// Calls function.operator()<vectors>().
template <typename Function>
void with_vectors(std::size_t vectors, Function function) {
  switch (vectors) {
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

void convolve(const ConvLayout& layout, ConvBlock* blocks, std::size_t count, std::size_t rows,
              std::size_t pixels) {
  const Tiling tiling(layout, rows, pixels);
  if (!tiling.worthwhile) {
    convolve_each<avx512_vnni::convolve_block>(layout, blocks, count, rows, pixels);
    return;
  }
  configure(tiling);
  for (ConvBlock* end = blocks + count; blocks != end;) {
    const std::size_t vectors = blocks->vectors;
    std::size_t equal = 1;
    while (blocks + equal != end && blocks[equal].vectors == vectors) {
      ++equal;
    }
    const auto run = [&]<int kVectors, typename Store>() {
      convolve_blocks<kVectors, Store>(layout, tiling, blocks, equal, rows, pixels);
    };
    with_vectors(vectors, [&]<int kVectors>() {
      if (layout.output.kind != OutputStage::Kind::kUInt8) {
        return run.template operator()<kVectors, StoreOther<kVectors>>();
      }
      avx512_vnni::with_post_op(layout.output, [&]<PostOp kPostOp>() {
        run.template operator()<kVectors, StoreBytes<kVectors, kPostOp>>();
      });
    });
    blocks += equal;
  }
  release_tiles();
}

}  // namespace pyquant::amx
