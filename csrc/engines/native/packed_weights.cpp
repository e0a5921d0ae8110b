#include "engines/native/packed_weights.h"

#include <algorithm>
#include <cstring>

#include "engines/native/divide_up.h"
#include "runtime/aligned_buffer.h"

namespace pyquant::native {
namespace {

// How many groups to merge: the number with the least work, in vector operations.
std::int64_t merged_members(const ConvLayer& layer) {
  constexpr std::int64_t kStoring = 3;  // what it costs to store a vector
  const auto vector = static_cast<std::int64_t>(layer.geometry().vector_channels);
  const auto block = vector * static_cast<std::int64_t>(layer.geometry().block_vectors);
  const auto step = static_cast<std::int64_t>(layer.geometry().step_inputs);
  std::int64_t best = 1;
  std::int64_t best_cost = 0;
  for (std::int64_t members = 1; members <= layer.groups; ++members) {
    const bool fits_block = members * layer.group_out() <= block;
    if (layer.groups % members != 0 || (members != 1 && !fits_block)) {
      continue;
    }
    const std::int64_t steps = layer.kernel_pixels() * divide_up(members * layer.group_in(), step);
    const std::int64_t cost = layer.groups / members *
                              divide_up(members * layer.group_out(), vector) * (steps + kStoring);
    if (members == 1 || cost <= best_cost) {
      best = members;
      best_cost = cost;
    }
  }
  return best;
}

// Whether the window of a few channels is best gathered.
bool gathers_columns(const ConvLayer& layer) {
  const Window& window = layer.window;
  return layer.kernels.gather_columns != nullptr && layer.groups == 1 &&
         static_cast<std::size_t>(layer.in_channels) <= kMostGatheredChannels &&
         window.dilation_w == 1 && window.kernel_h != 1 &&
         static_cast<std::size_t>(window.kernel_h) <= kMostGatheredRows;
}

PackedWeights::Runs choose_runs(const ConvLayer& layer, std::int64_t members) {
  if (gathers_columns(layer)) {
    return PackedWeights::Runs::kWindow;
  }
  const bool neighbours = layer.window.dilation_w == 1 || layer.window.kernel_w == 1;
  return members == layer.groups && neighbours ? PackedWeights::Runs::kRows
                                               : PackedWeights::Runs::kPixels;
}

std::int64_t pixels_of(PackedWeights::Runs runs, const ConvLayer& layer) {
  switch (runs) {
    case PackedWeights::Runs::kPixels:
      return 1;
    case PackedWeights::Runs::kRows:
      return layer.window.kernel_w;
    case PackedWeights::Runs::kWindow:
      return layer.kernel_pixels();
  }
  return 0;
}

}  // namespace

PackedWeights::PackedWeights(const ConvLayer& layer)
    : members_(merged_members(layer)),
      step_inputs_(static_cast<std::int64_t>(layer.geometry().step_inputs)),
      runs_(choose_runs(layer, members_)),
      run_pixels_(pixels_of(runs_, layer)),
      run_count_(layer.kernel_pixels() / run_pixels_),
      run_inputs_(run_pixels_ * members_ * layer.group_in()),
      float_sums_(layer.output.float_sums) {
  const std::int64_t merged_in = members_ * layer.group_in();
  const std::int64_t merged_out = members_ * layer.group_out();
  steps_ = static_cast<std::size_t>(divide_up(run_inputs_, step_inputs_));
  if (runs_ == Runs::kWindow) {
    // Gathered inputs have room for equal parts.
    const std::size_t parts = (steps_ - 1) / layer.geometry().tile_steps + 1;
    steps_ = ((steps_ - 1) / parts + 1) * parts;
  }

  const std::size_t vector = layer.geometry().vector_channels;
  const auto most = static_cast<std::int64_t>(vector * layer.geometry().block_vectors);
  std::size_t bytes = 0;
  for (std::int64_t merged = 0; merged < layer.groups / members_; ++merged) {
    for (std::int64_t first = 0; first < merged_out; first += most) {
      const auto channels = static_cast<std::size_t>(std::min(most, merged_out - first));
      const LaneBlock lanes = {merged * merged_out + first, channels,
                               (channels + vector - 1) / vector, vector};
      const std::size_t constants =
          bytes +
          align_to_cache_line(static_cast<std::size_t>(run_count_) * steps() * 4 * lanes.lanes());
      blocks_.push_back({lanes, merged * merged_in, bytes, constants});
      bytes = constants + align_to_cache_line(LaneConstants::bytes(lanes));
    }
  }
  memory_ = WeightMemory(bytes);
  for (const WeightBlock& block : blocks_) {
    if (layer.input_bytes() == sizeof(std::int8_t)) {
      pack<std::int8_t>(layer, block);
    } else {
      pack<std::int16_t>(layer, block);
    }
    LaneConstants::pack(layer, block.lanes, memory_.data() + block.constants);
  }
}

template <typename Weight>
void PackedWeights::pack(const ConvLayer& layer, const WeightBlock& block) {
  constexpr std::size_t kInputs = 4 / sizeof(Weight);
  auto* target = reinterpret_cast<Weight*>(memory_.data() + block.weights);
  const std::size_t step_weights = kInputs * block.lanes.lanes();
  const std::size_t run_steps = steps();
  block.lanes.for_each_lane([&](std::size_t lane, std::int64_t channel) {
    // Where this channel's own group begins in a pixel's run.
    const std::int64_t group_first =
        channel / layer.group_out() * layer.group_in() - block.first_input;
    for (std::int64_t kh = 0; kh < layer.window.kernel_h; ++kh) {
      for (std::int64_t kw = 0; kw < layer.window.kernel_w; ++kw) {
        // Which pixel of the window, in the order of the runs.
        const std::int64_t pixel = runs_ == Runs::kWindow ? kw * layer.window.kernel_h + kh
                                                          : kh * layer.window.kernel_w + kw;
        const std::int64_t run = pixel / run_pixels_;
        const std::int64_t begin = pixel % run_pixels_ * members_ * layer.group_in() + group_first;
        std::int64_t in = 0;
        if (static_cast<std::size_t>(begin) % kInputs == 0) {
          // Whole steps.
          Weight* step = target + kInputs * lane +
                         (static_cast<std::size_t>(run) * run_steps +
                          static_cast<std::size_t>(begin) / kInputs) *
                             step_weights;
          const std::int8_t* weights = layer.weights_of(channel, kh, kw);
          for (; in + static_cast<std::int64_t>(kInputs) <= layer.group_in(); in += kInputs) {
            std::copy_n(weights + in, kInputs, step);
            step += step_weights;
          }
        }
        for (; in < layer.group_in(); ++in) {
          const auto position = static_cast<std::size_t>(begin + in);
          const std::size_t step = static_cast<std::size_t>(run) * run_steps + position / kInputs;
          target[step * step_weights + kInputs * lane + position % kInputs] =
              layer.weights_of(channel, kh, kw)[in];
        }
      }
    }
  });
}

std::span<const std::byte> PackedWeights::block_memory(std::size_t index) const {
  const WeightBlock& block = blocks_[index];
  return {memory_.data() + block.weights,
          block.constants + LaneConstants::bytes(block.lanes) - block.weights};
}

ConvBlock PackedWeights::block(std::size_t index) const {
  const WeightBlock& block = blocks_[index];
  const LaneConstants constants(memory_.data() + block.constants, block.lanes, float_sums_);
  const auto next = block_memory(index + 1 == blocks_.size() ? 0 : index + 1);
  const auto* prefetch = reinterpret_cast<const std::int8_t*>(next.data());
  return {reinterpret_cast<const std::int8_t*>(memory_.data() + block.weights),
          constants.offsets,
          constants.multipliers,
          constants.shifts,
          block.lanes.vectors,
          block.lanes.channels,
          prefetch,
          prefetch + next.size()};
}

}  // namespace pyquant::native
