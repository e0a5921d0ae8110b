#include "engines/fbgemm/layer.h"

#include <limits>

#include "pyquant/error.h"

namespace pyquant::fbgemm_engine {

Layer::Layer(const Operator& op)
    : name(op.name),
      input_zero_point(op.inputs[0].qparams.zero_point),
      weights(static_cast<const std::int8_t*>(op.inputs[1].constant.data)) {
  const Shape& shape = op.inputs[1].constant.shape;
  if (const auto* conv = std::get_if<Conv2d>(&op.attributes)) {
    window = conv->window;
    groups = conv->groups;
  }
  out_channels = static_cast<std::int32_t>(shape[0]);
  in_channels = static_cast<std::int32_t>(shape[shape.rank() - 1]) * groups;
}

Images::Images(const Layer& layer, const Shape& input, const Shape& output) {
  constexpr std::int64_t kLimit = std::numeric_limits<std::int32_t>::max();
  if (input.elements() > kLimit || output.elements() > kLimit) {
    throw InvalidInputError("fbgemm: '" + layer.name + "' has 2^31 or more elements in its input " +
                            input.to_string() + " or output " + output.to_string());
  }
  if (layer.window == Window{}) {
    batch = static_cast<std::int32_t>(input.elements() / layer.in_channels);
    return;
  }
  batch = static_cast<std::int32_t>(input[0]);
  in_h = static_cast<std::int32_t>(input[1]);
  in_w = static_cast<std::int32_t>(input[2]);
  out_h = static_cast<std::int32_t>(output[1]);
  out_w = static_cast<std::int32_t>(output[2]);
}

}  // namespace pyquant::fbgemm_engine
