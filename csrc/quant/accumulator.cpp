#include "quant/accumulator.h"

#include <algorithm>
#include <cstdlib>

#include "quant/requantize.h"

namespace pyquant {

AccumulatorConstants::AccumulatorConstants(const Operator& op)
    : zero_point(op.output.qparams.zero_point) {
  if (const auto* conv = std::get_if<Conv2d>(&op.attributes)) {
    low = conv->output_min;
    high = conv->output_max;
  } else {
    const auto& linear = std::get<Linear>(op.attributes);
    low = linear.output_min;
    high = linear.output_max;
  }

  const QParams& input = op.inputs[0].qparams;
  const std::int64_t largest_input = std::max(input.zero_point, 255 - input.zero_point);
  const Shape& shape = op.inputs[1].constant.shape;
  const std::int64_t depth = shape.elements() / shape[0];
  const auto* weight = static_cast<const std::int8_t*>(op.inputs[1].constant.data);
  const auto* bias = static_cast<const std::int32_t*>(op.inputs[2].constant.data);
  for (std::int64_t o = 0; o < shape[0]; ++o) {
    // In int32, which a checked operator's sums fit, for the compiler to vectorise.
    std::int32_t sum = 0;
    std::int32_t magnitude = 0;
    for (std::int64_t i = 0; i < depth; ++i) {
      sum += weight[i];
      magnitude += std::abs(static_cast<std::int32_t>(weight[i]));
    }
    weight += depth;
    const std::int64_t bound = std::abs(std::int64_t{bias[o]}) + largest_input * magnitude;
    largest_magnitude = std::max(largest_magnitude, bound);
    offsets.push_back(static_cast<std::int32_t>(
        static_cast<std::uint32_t>(bias[o] - std::int64_t{input.zero_point} * sum)));
    const float scale = op.inputs[1].channel_scales[o];
    multipliers.push_back(op.output.dtype == DType::kFloat32
                              ? input.scale * scale
                              : requantize_multiplier(input.scale, scale, op.output.qparams.scale));
    // An infinite multiplier fails, too, unless all it multiplies is zero, and then the NaN does.
    scaled_fits_int32 =
        scaled_fits_int32 &&
        static_cast<double>(bound) * static_cast<double>(multipliers.back()) < 0x1p30;
  }
}

}  // namespace pyquant
