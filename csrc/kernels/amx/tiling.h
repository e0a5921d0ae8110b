// How the outputs of a convolution are cut into tiles. Everything here has internal linkage; see
// rounding.h in avx2.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/convolution.h"

namespace pyquant::amx {
namespace {

constexpr std::size_t divide_up(std::size_t a, std::size_t b) { return (a + b - 1) / b; }

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
  std::size_t prefetched_lines = 0;  // of the next block's weights, per input tile or group
  bool worthwhile;

  Tiling(const ConvLayout& layout, std::size_t row_pixels)
      : tiles_in_row(divide_up(row_pixels, kTileRows)) {
    pixels = divide_up(row_pixels, tiles_in_row);
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

  // So many lines that all of the next block's weights are fetched in `times` equal parts of this
  // one.
  void spread_prefetch(const ConvBlock& block, std::size_t times) {
    const auto bytes = static_cast<std::size_t>(block.prefetch_end - block.prefetch);
    prefetched_lines = divide_up(bytes / 64, times);
  }
};

struct TileInput {
  const std::uint8_t* x;
  char* y;
  std::size_t first;  // pixel to be stored
};

}  // namespace
}  // namespace pyquant::amx
