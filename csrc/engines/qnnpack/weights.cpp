#include "engines/qnnpack/weights.h"

#include <algorithm>
#include <cmath>

#include "engines/qnnpack/qnnpack_api.h"
#include "quant/accumulator.h"

namespace pyquant::qnnpack_engine {
namespace {

constexpr std::uint8_t kZeroPoint = 128;

}  // namespace

std::string why_not_requantizable(const Operator& op) {
  if (op.output.dtype != DType::kUInt8) {
    return "QNNPACK writes uint8 only";
  }
  const AccumulatorConstants constants(op);
  if (!std::ranges::all_of(constants.multipliers, [](float m) { return std::isnormal(m); })) {
    return "QNNPACK needs normal requantization scales s_x * s_w / s_y";
  }
  if (!constants.scaled_fits_int32) {
    return "an accumulator times s_x * s_w / s_y may exceed QNNPACK's int32";
  }
  return {};
}

Weights::Weights(const Operator& op)
    : zero_points(static_cast<std::size_t>(op.inputs[1].constant.shape[0]) + kReadBeyondChannels,
                  kZeroPoint),
      requantization_scales(AccumulatorConstants(op).multipliers) {
  const auto* weight = static_cast<const std::int8_t*>(op.inputs[1].constant.data);
  kernel.resize(op.inputs[1].constant.bytes());
  std::transform(weight, weight + kernel.size(), kernel.begin(),
                 [](std::int8_t w) { return static_cast<std::uint8_t>(w + kZeroPoint); });
  const auto* first_bias = static_cast<const std::int32_t*>(op.inputs[2].constant.data);
  bias.assign(first_bias, first_bias + requantization_scales.size());
  requantization_scales.resize(zero_points.size(), 1.0F);
}

}  // namespace pyquant::qnnpack_engine
