#include <cstdlib>

#include "runtime/ops/op_definition.h"

namespace pyquant {
namespace {

constexpr std::int32_t kMaxPad = 1 << 14;

void check_pad(const Operator& op) {
  const auto& pad = std::get<Pad>(op.attributes);
  check_uint8_activation(op, op.inputs[0], "the input");
  check_uint8_activation(op, op.output, "the output");
  check_same_qparams(op);
  for (const std::int32_t amount : {pad.top, pad.left, pad.bottom, pad.right}) {
    if (amount < -kMaxPad || amount > kMaxPad) {
      reject_operator(op, "the amount of padding is out of range");
    }
  }
}

Shape pad_shape(const Operator& op, std::span<const Shape> inputs) {
  const auto& pad = std::get<Pad>(op.attributes);
  const Shape& x = inputs[0];
  require_rank(op, x, 4);
  return {x[0], x[1] + pad.top + pad.bottom, x[2] + pad.left + pad.right, x[3]};
}

}  // namespace

const OpDefinition kPadDefinition = {"Pad", 1, check_pad, pad_shape, never_view};

}  // namespace pyquant
