#include "engines/native/conv_layer.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "quant/requantize.h"

namespace pyquant::native {
namespace {

OutputRange output_range(const Operator& op) {
  const std::int32_t zero_point = op.output.qparams.zero_point;
  if (const auto* conv = std::get_if<Conv2d>(&op.attributes)) {
    return {zero_point, conv->output_min, conv->output_max};
  }
  const auto& linear = std::get<Linear>(op.attributes);
  return {zero_point, linear.output_min, linear.output_max};
}

}  // namespace

ConvLayer::ConvLayer(const Operator& op)
    : input_zero_point(op.inputs[0].qparams.zero_point),
      weights(static_cast<const std::int8_t*>(op.inputs[1].constant.data)) {
  const Shape& shape = op.inputs[1].constant.shape;
  if (const auto* conv = std::get_if<Conv2d>(&op.attributes)) {
    window = conv->window;
    groups = conv->groups;
  }
  out_channels = shape[0];
  in_channels = shape[shape.rank() - 1] * groups;

  const bool is_float = op.output.dtype == DType::kFloat32;
  const float input_scale = op.inputs[0].qparams.scale;
  const std::int64_t largest_input = std::max(input_zero_point, 255 - input_zero_point);
  const std::int64_t depth = kernel_pixels() * group_in();
  const auto* bias = static_cast<const std::int32_t*>(op.inputs[2].constant.data);
  bool fits = true;
  for (std::int64_t o = 0; o < out_channels; ++o) {
    std::int64_t sum = 0;
    std::int64_t bound = std::abs(std::int64_t{bias[o]});
    for (std::int64_t i = o * depth; i < (o + 1) * depth; ++i) {
      sum += weights[i];
      bound += largest_input * std::abs(weights[i]);
    }
    const float scale = op.inputs[1].channel_scales[o];
    multipliers.push_back(is_float
                              ? input_scale * scale
                              : requantize_multiplier(input_scale, scale, op.output.qparams.scale));
    // The sum with the products of the raw inputs fits int32 again: all are modulo 2^32.
    offsets.push_back(
        static_cast<std::int32_t>(static_cast<std::uint32_t>(bias[o] - input_zero_point * sum)));
    // Half of int32 leaves room for the roundings. NaN (0 times infinity) does not fit.
    fits = fits && static_cast<double>(bound) * static_cast<double>(multipliers.back()) < 0x1p30;
  }
  output = {is_float ? OutputStage::Kind::kFloat
            : fits   ? OutputStage::Kind::kUInt8
                     : OutputStage::Kind::kUInt8Clamped,
            output_range(op)};
  output_size = size_of(op.output.dtype);
}

LaneConstants::LaneConstants(const ConvLayer& layer, std::span<const LaneBlock> blocks) {
  std::size_t lanes = 0;
  for (const LaneBlock& block : blocks) {
    first_lane_.push_back(lanes);
    lanes += block.vectors * kVectorChannels;
  }
  memory_.reserve(2 * lanes * sizeof(std::int32_t));
  std::memset(memory_.data(), 0, memory_.size());
  offsets_ = reinterpret_cast<std::int32_t*>(memory_.data());
  multipliers_ = reinterpret_cast<float*>(offsets_ + lanes);
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    blocks[i].for_each_lane([&](std::size_t lane, std::int64_t channel) {
      offsets_[first_lane_[i] + lane] = layer.offsets[static_cast<std::size_t>(channel)];
      multipliers_[first_lane_[i] + lane] = layer.multipliers[static_cast<std::size_t>(channel)];
    });
  }
}

}  // namespace pyquant::native
