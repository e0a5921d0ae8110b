#include "runtime/ops/op_definition.h"

namespace pyquant {
namespace {

void check_channel_shuffle(const Operator& op) {
  check_uint8_activation(op, op.inputs[0], "the input");
  check_uint8_activation(op, op.output, "the output");
  check_same_qparams(op);
  if (std::get<ChannelShuffle>(op.attributes).groups < 1) {
    reject_operator(op, "the number of groups must be positive");
  }
}

Shape channel_shuffle_shape(const Operator& op, std::span<const Shape> inputs) {
  const Shape& x = inputs[0];
  require_rank(op, x, 4);
  const std::int32_t groups = std::get<ChannelShuffle>(op.attributes).groups;
  if (x[3] % groups != 0) {
    reject_shapes(
        op, std::to_string(groups) + " groups do not divide the channels of " + x.to_string());
  }
  return x;
}

}  // namespace

const OpDefinition kChannelShuffleDefinition = {"ChannelShuffle", 1, check_channel_shuffle,
                                                channel_shuffle_shape, never_view};

}  // namespace pyquant
