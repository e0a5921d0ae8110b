#include "runtime/ops/op_definition.h"

namespace pyquant {
namespace {

void check_slice(const Operator& op) {
  const auto& slice = std::get<Slice>(op.attributes);
  check_uint8_activation(op, op.inputs[0], "the input");
  check_uint8_activation(op, op.output, "the output");
  check_same_qparams(op);
  if (slice.begin < 0 || slice.begin >= slice.end) {
    reject_operator(op, "the range " + std::to_string(slice.begin) + " to " +
                            std::to_string(slice.end) + " is empty or begins below 0");
  }
}

Shape slice_shape(const Operator& op, std::span<const Shape> inputs) {
  const auto& slice = std::get<Slice>(op.attributes);
  Shape y = inputs[0];
  require_axis(op, y, slice.axis);
  std::int64_t& size = y[static_cast<std::size_t>(slice.axis)];
  if (slice.end > size) {
    reject_shapes(op, "the range " + std::to_string(slice.begin) + " to " +
                          std::to_string(slice.end) + " of axis " + std::to_string(slice.axis) +
                          " is outside " + y.to_string());
  }
  size = slice.end - slice.begin;
  return y;
}

}  // namespace

const OpDefinition kSliceDefinition = {"Slice", 1, check_slice, slice_shape, never_view};

}  // namespace pyquant
