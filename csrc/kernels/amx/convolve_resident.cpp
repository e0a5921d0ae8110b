// Convolution of so few inputs per output that one input tile holds them all: the weights of a
// block of channels stay in tile registers. Each accumulator is stored some multiplications after
// its own, whose latency is long, and between parts of the stores of an earlier tile: many in a row
// fill the store buffer, and the vector units wait.
#include "kernels/amx/kernels.h"
#include "kernels/amx/pending_stores.h"
#include "kernels/amx/tile_registers.h"

namespace pyquant::amx {
namespace {

// The tiles of some rows of outputs, one after the other. (The loops of convolve.cpp take 4 %
// longer with it.)
class TileSequence {
 public:
  TileSequence(const ConvLayout& layout, const Tiling& tiling, const std::uint8_t* x,
               std::size_t pixels, char* y)
      : x_(x),
        y_(y),
        row_stride_(layout.row_stride),
        pixel_stride_(layout.pixel_stride),
        output_bytes_(layout.output_stride * layout.output.output_bytes()),
        row_pixels_(pixels),
        tile_pixels_(tiling.pixels) {}

  TileInput next() {
    const std::size_t last = row_pixels_ - tile_pixels_;
    const std::size_t pixel = next_ < last ? next_ : last;
    const TileInput tile = {x_ + static_cast<std::ptrdiff_t>(pixel) * pixel_stride_,
                            y_ + pixel * output_bytes_, next_ - pixel};
    next_ += tile_pixels_;
    if (next_ >= row_pixels_) {
      next_ = 0;
      x_ += row_stride_;
      y_ += row_pixels_ * output_bytes_;
    }
    return tile;
  }

 private:
  const std::uint8_t* x_;  // of the row
  char* y_;
  std::ptrdiff_t row_stride_, pixel_stride_;
  std::size_t output_bytes_;  // of a pixel
  std::size_t row_pixels_, tile_pixels_;
  std::size_t next_ = 0;  // pixel that no tile has yet
};

// A group is one or two tiles of pixels; its parts are the accumulators of each [tile][vector].
// Registers: one for each part, then inputs, then weights. Where these are too few for four vectors
// of weights, the last two take turns.
template <int kVectors>
struct Registers {
  static constexpr int kTiles = kVectors <= 2 ? 2 : 1;
  static constexpr int kParts = kTiles * kVectors;
  static constexpr int kInputs = kParts;
  static constexpr int kWeights = kInputs + kTiles;

  static constexpr int weights_of(int vector) {
    return kWeights + vector < 8 ? kWeights + vector : 7;
  }
  static constexpr bool resident(int vector) { return kVectors < 4 || vector < 2; }

  static void configure(const Tiling& tiling) {
    TileConfiguration configuration;
    for (int i = 0; i < 8; ++i) {
      const bool inputs = i >= kInputs && i < kWeights;
      configuration.rows[i] =
          static_cast<std::uint8_t>(i < kWeights ? tiling.pixels : tiling.steps);
      configuration.row_bytes[i] = static_cast<std::uint16_t>(inputs ? 4 * tiling.steps : 64);
    }
    load(configuration);
  }

  template <int kVector>
  static PYQUANT_INLINE void load_weights(const ConvBlock& block) {
    load_tile<weights_of(kVector)>(block.weights + 64 * kVector, 64 * kVectors);
  }

  template <int kVector = 0>
  static void load_resident(const ConvBlock& block) {
    if constexpr (kVector < kVectors) {
      if constexpr (resident(kVector)) {
        load_weights<kVector>(block);
      }
      load_resident<kVector + 1>(block);
    }
  }

  template <int kPart>
  static PYQUANT_INLINE void multiply(const ConvBlock& block) {
    constexpr int kVector = kPart % kVectors;
    if constexpr (!resident(kVector)) {
      load_weights<kVector>(block);
    }
    zero_tile<kPart>();
    multiply_tiles<kPart, kInputs + kPart / kVectors, weights_of(kVector)>();
  }

  template <int kPart>
  static PYQUANT_INLINE void store(std::int32_t* sums) {
    constexpr std::size_t kPlace =
        16 * (kPart / kVectors * kTileRows * kVectors + kPart % kVectors);
    store_tile<kPart>(sums + kPlace, 64 * kVectors);
  }

  // The parts that are left after those of the last group have been multiplied.
  template <int kPart = 1>
  static void store_rest(std::int32_t* sums) {
    if constexpr (kPart < kParts) {
      store<kPart>(sums);
      store_rest<kPart + 1>(sums);
    }
  }
};

template <int kVectors>
using Pending = PendingStores<kVectors, PostOp::kNone>;

// Multiplies the parts of a group from kPart on; after each, an earlier one is stored, which is the
// previous group's but for the last.
template <int kPart, int kVectors>
PYQUANT_INLINE void run_parts(const ConvBlock& block, Pending<kVectors>& pending, std::size_t share,
                              std::int32_t* previous, std::int32_t* sums) {
  using R = Registers<kVectors>;
  if constexpr (kPart < R::kParts) {
    R::template multiply<kPart>(block);
    pending.advance(share);
    if constexpr (kPart + 1 < R::kParts) {
      R::template store<kPart + 1>(previous);
    } else {
      R::template store<0>(sums);
    }
    run_parts<kPart + 1>(block, pending, share, previous, sums);
  }
}

template <int kVectors>
void convolve_block(const ConvLayout& layout, const Tiling& tiling, ConvBlock& block,
                    const std::uint8_t* x, std::size_t rows, std::size_t pixels, char* y) {
  using R = Registers<kVectors>;
  R::configure(tiling);
  R::load_resident(block);
  // Of the group being multiplied, of the one before it, and of the one being stored.
  constexpr std::size_t kSums = R::kTiles * kTileRows * 16 * kVectors;
  alignas(64) std::int32_t sums[3 * kSums + kSumsSlack<kVectors>];
  std::int32_t* current = sums;
  std::int32_t* previous = sums + kSums;
  std::int32_t* oldest = sums + 2 * kSums;
  TileInput previous_tiles[R::kTiles];
  std::size_t previous_count = 0;
  Pending<kVectors> pending(layout, block, tiling.pixels);
  std::size_t left = rows * tiling.tiles_in_row;
  const std::int8_t* next = block.prefetch;
  TileSequence sequence(layout, tiling, x, pixels, y);
  while (left != 0) {
    const std::size_t count = left < R::kTiles ? left : R::kTiles;
    left -= count;
    TileInput tiles[R::kTiles];
    for (std::size_t i = 0; i < count; ++i) {
      tiles[i] = sequence.next();
    }
    load_tile<R::kInputs>(tiles[0].x + layout.taps[0], layout.pixel_stride);
    if constexpr (R::kTiles > 1) {
      // A single last tile is multiplied twice.
      load_tile<R::kInputs + 1>(tiles[count - 1].x + layout.taps[0], layout.pixel_stride);
    }
    for (std::size_t line = 0; line < tiling.prefetched_lines; ++line, next += 64) {
      _mm_prefetch(reinterpret_cast<const char*>(next), _MM_HINT_T1);
    }
    run_parts<0>(block, pending, pending.share(R::kParts), previous, current);
    pending.start(previous_tiles, previous_count, previous);
    for (std::size_t i = 0; i < count; ++i) {
      previous_tiles[i] = tiles[i];
    }
    previous_count = count;
    std::int32_t* stored = oldest;
    oldest = previous;
    previous = current;
    current = stored;
  }
  R::store_rest(previous);
  pending.finish();
  pending.start(previous_tiles, previous_count, previous);
  pending.finish();
  block.prefetch = next < block.prefetch_end ? next : block.weights;
}

}  // namespace

void convolve_resident(const ConvLayout& layout, ConvBlock& block, const std::uint8_t* x,
                       std::size_t rows, std::size_t pixels, void* y) {
  Tiling tiling(layout, pixels);
  with_vectors(block, [&]<int kVectors>() {
    tiling.spread_prefetch(block,
                           divide_up(rows * tiling.tiles_in_row, Registers<kVectors>::kTiles));
    convolve_block<kVectors>(layout, tiling, block, x, rows, pixels, static_cast<char*>(y));
  });
  release_tiles();
}

}  // namespace pyquant::amx
