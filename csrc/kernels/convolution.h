// What the drivers in engines/native hand to the kernels that multiply: convolutions as implicit
// matrix products over NHWC images, and depthwise convolutions.
//
// Both kinds compute a block of output channels at a time, as 1 to 4 vectors of int32 lanes; how
// long a vector is and what it multiplies is the instruction set's to say (LaneGeometry). Which
// channel a lane holds follows from what the kernels' final pack instructions do, within 128 bits;
// weights, offsets and multipliers come in that order (lane_channel).
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/output_stage.h"

namespace pyquant {

// What one instruction set's kernels read.
struct LaneGeometry {
  std::size_t vector_channels;  // int32 lanes of a vector: a multiple of 4
  std::size_t block_vectors;    // of a block of a convolution, at most: 1 to 4
  // The inputs that a lane multiplies and sums in one step, together 4 bytes, and as many weights:
  // 4 of uint8 and int8, or 2 of uint16 and int16 (for which the drivers widen the image).
  std::size_t step_inputs;
  // What the kernel subtracts from each input, so that it is signed; the offsets make up for it.
  std::int32_t input_shift = 0;
  // Steps that are multiplied at once, at most; a run is cut into equal parts of so many.
  std::size_t tile_steps = 1;
};

// The rows of a window that a kernel gathers, and their channels, at most.
inline constexpr std::size_t kMostGatheredRows = 7, kMostGatheredChannels = 4;

// Of a block of a depthwise convolution, on every instruction set.
inline constexpr std::size_t kDepthwiseVectors = 4;

// The channel, within its block of `vectors` vectors, of a lane of a vector. Of internal linkage:
// files that are compiled for different instruction sets must not share a copy.
static constexpr std::size_t lane_channel(std::size_t vectors, std::size_t vector,
                                          std::size_t lane) {
  return 4 * vectors * (lane / 4) + 4 * vector + lane % 4;
}

// The layer, the same for all of its blocks. A pixel's inputs are `tap_count` runs of 4 * `steps`
// contiguous bytes; where a run has fewer inputs, the weights of the excess are zero, and the bytes
// are readable.
struct ConvLayout {
  const std::ptrdiff_t* taps;  // from a pixel to each of its runs, in bytes
  std::size_t tap_count;
  std::size_t steps;
  std::ptrdiff_t pixel_stride;  // input bytes from one output pixel to the next
  std::ptrdiff_t row_stride;    // and from one output row to the next
  std::size_t output_stride;    // outputs from one output pixel to the next
  OutputStage output;
};

// One block of output channels. Arrays are in lane order and aligned to 64 bytes.
struct ConvBlock {
  const std::int8_t* weights;     // [tap][step][vector][lane][4 bytes: step_inputs weights]
  const std::int32_t* offsets;    // [vector][lane]: initial accumulators
  const float* multipliers;       // [vector][lane]
  const float* shifts;            // [vector][lane]: -2^23 * multiplier; null without float_sums
  std::size_t vectors, channels;  // channels <= vector_channels * vectors are stored

  // The weights that the next block reads: fetched into the cache while this one multiplies. A
  // kernel may advance `prefetch`; from `prefetch_end` on, nothing is left.
  const std::int8_t* prefetch;
  const std::int8_t* prefetch_end;

  const std::uint8_t* x = nullptr;  // the input of the first pixel
  void* y = nullptr;                // the block's first channel of it: uint8, float32 or int32
};

// The table's `convolve` of an instruction set that takes one block after the other. Of internal
// linkage, as lane_channel.
template <auto kConvolveBlock>
static void convolve_each(const ConvLayout& layout, ConvBlock* blocks, std::size_t count,
                          std::size_t rows, std::size_t pixels) {
  for (ConvBlock* block = blocks; block != blocks + count; ++block) {
    kConvolveBlock(layout, *block, rows, pixels);
  }
}

// Up to 4 vectors of channels of a depthwise convolution. It reads columns of interleaved rows: a
// column is `groups` times [vector][lane][4 bytes], the 4 bytes being the same channel of
// step_inputs input rows. `rows` (1, 2 or 4) output rows are computed from one set of columns.
//
// A block of at most half or a quarter of these channels leaves lanes free: 2 or 4 strips of the
// row are computed side by side, the first in the first half or quarter of a column, and so on.
struct DepthwiseBlock {
  const std::int8_t* weights;   // [group][tap][row][vector][lane][4 bytes]
  const std::int32_t* offsets;  // [vector][lane]
  const float* multipliers;     // [vector][lane]
  const float* shifts;          // [vector][lane], as of a ConvBlock
  std::size_t channels;
  std::size_t rows, groups;
  std::size_t taps;                         // of one row of the kernel
  std::size_t tap_columns, stride_columns;  // columns between taps and between output pixels
  std::size_t pixel_stride, row_stride;     // in outputs
  std::size_t strips, strip_stride;         // in outputs; more than one strip only for kUInt8
  OutputStage output;
};

// The image under a depthwise convolution's block of channels, in the rows of one pass.
struct DepthwiseRows {
  const std::uint8_t* const* rows;  // step_inputs of them, from their first column on
  std::size_t pixel_bytes;
  std::ptrdiff_t columns;
  std::ptrdiff_t first_column;   // under the first window; before the image, it is negative
  std::ptrdiff_t strip_columns;  // from one strip to the next
  std::uint8_t zero_point;       // what the columns outside the image hold
};

}  // namespace pyquant
