#include "runtime/ops/op_definition.h"

namespace pyquant {
namespace {

std::string range_of(const Slice& slice) {
  return "the range " + std::to_string(slice.begin) + " to " +
         (slice.end == 0 ? "the end" : std::to_string(slice.end));
}

void check_slice(const Operator& op) {
  const auto& slice = std::get<Slice>(op.attributes);
  check_uint8_activation(op, op.inputs[0], "the input");
  check_uint8_activation(op, op.output, "the output");
  check_same_qparams(op);
  // Bounds counted from the same side leave as much in an axis of any size.
  const bool same_side = (slice.begin < 0) == (slice.end <= 0);
  if (same_side && slice.begin >= slice.end) {
    reject_operator(op, range_of(slice) + " is empty");
  }
}

Shape slice_shape(const Operator& op, std::span<const Shape> inputs) {
  const auto& slice = std::get<Slice>(op.attributes);
  Shape y = inputs[0];
  require_axis(op, y, slice.axis);
  std::int64_t& size = y[static_cast<std::size_t>(slice.axis)];
  const std::int64_t begin = slice.begin_in(size);
  const std::int64_t end = slice.end_in(size);
  if (begin < 0 || begin >= end || end > size) {
    reject_shapes(op, range_of(slice) + " of axis " + std::to_string(slice.axis) +
                          (begin >= end ? " is empty in " : " is outside ") + y.to_string());
  }
  size = end - begin;
  return y;
}

}  // namespace

const OpDefinition kSliceDefinition = {"Slice", 1, check_slice, slice_shape, never_view};

}  // namespace pyquant
