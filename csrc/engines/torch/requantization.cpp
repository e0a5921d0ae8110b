#include "engines/torch/requantization.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "quant/requantize.h"

namespace pyquant {

std::vector<float> output_multipliers(const Operator& op) {
  const float input_scale = op.inputs[0].qparams.scale;
  const Operand& weight = op.inputs[1];
  std::vector<float> multipliers(static_cast<std::size_t>(weight.constant.shape[0]));
  for (std::size_t o = 0; o < multipliers.size(); ++o) {
    multipliers[o] =
        op.output.dtype == DType::kUInt8
            ? requantize_multiplier(input_scale, weight.channel_scales[o], op.output.qparams.scale)
            : input_scale * weight.channel_scales[o];
  }
  return multipliers;
}

bool scaled_accumulators_fit_int32(const Operator& op, std::span<const float> multipliers) {
  // Half the range leaves room for all roundings. An infinite multiplier fails, too, unless all it
  // multiplies is zero, and then the NaN does.
  constexpr double kLimit = 0x1p30;
  const std::int32_t zero_point = op.inputs[0].qparams.zero_point;
  const std::int64_t largest_input = std::max(zero_point, 255 - zero_point);
  const auto* weight = static_cast<const std::int8_t*>(op.inputs[1].constant.data);
  const auto* bias = static_cast<const std::int32_t*>(op.inputs[2].constant.data);
  const std::int64_t depth =
      op.inputs[1].constant.shape.elements() / op.inputs[1].constant.shape[0];
  for (std::size_t o = 0; o < multipliers.size(); ++o) {
    std::int64_t bound = std::abs(std::int64_t{bias[o]});
    for (std::int64_t i = 0; i < depth; ++i) {
      bound += largest_input * std::abs(*weight++);
    }
    if (!(static_cast<double>(bound) * static_cast<double>(multipliers[o]) < kLimit)) {
      return false;
    }
  }
  return true;
}

}  // namespace pyquant
