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
  std::size_t steps;   // of an input tile
  std::size_t chunks;  // input tiles in a run
  bool worthwhile;

  Tiling(const ConvLayout& layout, std::size_t rows, std::size_t row_pixels)
      : tiles_in_row(divide_up(row_pixels, kTileRows)) {
    if (rows == 1 && tiles_in_row > 2) {
      tiles_in_row += tiles_in_row % 2;  // two are multiplied at a time; smaller ones take less
    }
    pixels = divide_up(row_pixels, tiles_in_row);
    tiles_in_row = divide_up(row_pixels, pixels);
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
};

struct TileInput {
  const std::uint8_t* x;
  char* y;
  std::size_t first;  // pixel to be stored
};

// What is multiplied at a time: one or two tiles of a block; if it is one, it is there twice.
struct TilePair {
  const ConvBlock* block = nullptr;
  TileInput tiles[2] = {};
  int count = 0;
};

// The tiles of some rows of outputs, one after the other.
class TileSequence {
 public:
  TileSequence(const ConvLayout& layout, const Tiling& tiling, const std::uint8_t* x,
               std::size_t row_pixels, char* y)
      : x_(x),
        y_(y),
        row_stride_(layout.row_stride),
        pixel_stride_(layout.pixel_stride),
        output_bytes_(layout.output_stride * layout.output.output_bytes()),
        row_pixels_(row_pixels),
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

}  // namespace
}  // namespace pyquant::amx
