// The weights of a convolution in the order in which the `convolve` kernel reads them.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engines/native/conv_layer.h"
#include "engines/native/weight_memory.h"

namespace pyquant::native {

// A block of output channels and the input channels that they read.
struct WeightBlock {
  LaneBlock lanes;
  std::int64_t first_input;  // channel
  std::size_t weights;       // position of its weights, and of its constants behind them
  std::size_t constants;
};

// Groups are multiplied one after the other; narrow ones are merged with their neighbours, the
// weights between what were different groups being zero, so that they fill a vector.
//
// A pixel's inputs come in contiguous runs.
class PackedWeights {
 public:
  enum class Runs : std::uint8_t {
    kPixels,  // of the window
    kRows,    // of the window, where its pixels are neighbours and all channels are used
    kWindow,  // all of it, column by column: [kernel_w][kernel_h][channels]
  };

  explicit PackedWeights(const ConvLayer& layer);

  const std::vector<WeightBlock>& blocks() const { return blocks_; }
  std::int64_t run_inputs() const { return run_inputs_; }
  std::int64_t run_count() const { return run_count_; }
  std::int64_t run_pixels() const { return run_pixels_; }  // of the window
  Runs runs() const { return runs_; }
  // A run holds all input channels.
  bool one_group() const { return blocks_.back().first_input == 0; }
  // Steps in a run; the last ones may have inputs beyond the run's end.
  std::size_t steps() const { return steps_; }
  bool overruns() const { return static_cast<std::int64_t>(steps_) * step_inputs_ != run_inputs_; }

  std::size_t bytes() const { return memory_.size(); }
  // The weights and constants of a block.
  std::span<const std::byte> block_memory(std::size_t index) const;
  // What `convolve` needs of a block but x and y. The block after it is fetched while it is being
  // read.
  ConvBlock block(std::size_t index) const;

 private:
  // Weight: int8 or int16, as the kernel multiplies them.
  template <typename Weight>
  void pack(const ConvLayer& layer, const WeightBlock& block);

  std::int64_t members_ = 1;  // groups that are merged into one
  std::int64_t step_inputs_;
  Runs runs_;
  std::int64_t run_pixels_, run_count_, run_inputs_;
  std::size_t steps_ = 0;
  std::vector<WeightBlock> blocks_;
  bool float_sums_;
  WeightMemory memory_;
};

}  // namespace pyquant::native
