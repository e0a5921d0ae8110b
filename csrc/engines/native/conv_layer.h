// Conv2d and Linear as one thing: a convolution over NHWC images, whose output stage is ready for
// the kernels.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "engines/engine.h"
#include "kernels/kernel_table.h"
#include "pyquant/operator.h"
#include "quant/accumulator.h"

namespace pyquant::native {

// What is known when an operator is prepared. Borrows the operator's constants.
struct ConvLayer {
  // post_ops: those that native::fuses() accepts.
  explicit ConvLayer(const Operator& op, std::span<const PostOp> post_ops = {});

  // What runs it and how its blocks are laid out.
  const KernelTable& kernels;
  const LaneGeometry& geometry() const { return kernels.geometry; }
  // Bytes of an input where the kernel reads it.
  std::int64_t input_bytes() const { return 4 / static_cast<std::int64_t>(geometry().step_inputs); }

  std::int64_t group_in() const { return in_channels / groups; }
  std::int64_t group_out() const { return out_channels / groups; }
  std::int64_t kernel_pixels() const { return std::int64_t{window.kernel_h} * window.kernel_w; }

  // The weights of an output channel for one pixel of the window: group_in() of them.
  const std::int8_t* weights_of(std::int64_t out, std::int64_t kh, std::int64_t kw) const {
    return weights + ((out * window.kernel_h + kh) * window.kernel_w + kw) * group_in();
  }

  // The initial accumulator of an output channel.
  std::int32_t offset(std::int64_t out) const;

  Window window;  // a Linear has the default, 1x1
  std::int64_t groups = 1;
  std::int64_t in_channels = 0, out_channels = 0;
  std::int32_t input_zero_point = 0;
  const std::int8_t* weights = nullptr;  // [out_channels, kernel_h, kernel_w, group_in()]

  AccumulatorConstants constants;
  OutputStage output{};
  std::size_t output_size = 1;  // bytes of one output

 private:
  void fuse(const PostOp& post_op);

  std::shared_ptr<const LookupTable> table_;  // what `output` points to
};

// Some output channels in lane order, aligned for the kernels.
struct LaneBlock {
  std::int64_t first_channel;
  std::size_t channels, vectors, vector_channels;
  std::size_t strips = 1;  // that share the lanes, each with all channels (see DepthwiseBlock)

  std::size_t lanes() const { return vectors * vector_channels; }

  // Calls visit(lane index in the block, channel) for the lanes that hold a channel.
  template <typename Visit>
  void for_each_lane(Visit visit) const {
    for (std::size_t vector = 0; vector < vectors; ++vector) {
      for (std::size_t lane = 0; lane < vector_channels; ++lane) {
        const std::size_t channel = lane_channel(vectors, vector, lane) % (lanes() / strips);
        if (channel < channels) {
          visit(vector * vector_channels + lane,
                first_channel + static_cast<std::int64_t>(channel));
        }
      }
    }
  }
};

// The offsets, multipliers and shifts of a block. They lie behind its weights, and come into the
// cache with these.
struct LaneConstants {
  const std::int32_t* offsets;  // [lane]
  const float* multipliers;
  const float* shifts;  // null unless the layer has float_sums

  // Those that pack() has put at `memory`.
  LaneConstants(const std::byte* memory, const LaneBlock& block, bool float_sums);

  static std::size_t bytes(const LaneBlock& block) { return 3 * block.lanes() * sizeof(float); }
  // memory: bytes(block) zeros, aligned to 64. Those of unused lanes stay zero.
  static void pack(const ConvLayer& layer, const LaneBlock& block, std::byte* memory);
};

}  // namespace pyquant::native
