#include "engines/native/broadcast.h"

namespace pyquant::native {

// After merging, the innermost axis is one that both inputs walk, or one on which one of them
// stands still; in the first case the axis around it, if any, repeats the row of one of them.
Broadcast::Broadcast(const Shape& a, const Shape& b, const Shape& output)
    : axes_(merged_axes(a, b, output)), elements_(output.elements()) {
  const auto& inner = axes_[0].strides;
  both_walk_ = inner[0] == 1 && inner[1] == 1;
  const auto& deciding = both_walk_ && axes_.size() > 1 ? axes_[1].strides : inner;
  repeated_ = deciding[0] == 0 ? 0 : 1;
}

// The output's dimensions, with those merged that both inputs walk through as if they were one.
std::vector<Broadcast::Axis> Broadcast::merged_axes(const Shape& a, const Shape& b,
                                                    const Shape& output) {
  std::vector<Axis> axes;
  std::array<std::int64_t, 2> elements = {1, 1};
  for (std::size_t axis = output.rank(); axis-- > 0;) {
    const std::array<std::int64_t, 2> sizes = {a[axis], b[axis]};
    Axis next{output[axis], {}};
    for (std::size_t input = 0; input < 2; ++input) {
      next.strides[input] = sizes[input] == 1 ? 0 : elements[input];
      elements[input] *= sizes[input];
    }
    if (next.size == 1) {
      continue;
    }
    const auto continues = [&](std::size_t input) {
      return next.strides[input] == axes.back().strides[input] * axes.back().size;
    };
    if (!axes.empty() && continues(0) && continues(1)) {
      axes.back().size *= next.size;
    } else {
      axes.push_back(next);
    }
  }
  if (axes.empty()) {
    axes.push_back({1, {1, 1}});
  }
  return axes;
}

std::int64_t Broadcast::offset_of(std::size_t input, std::int64_t row) const {
  std::int64_t offset = 0;
  for (std::size_t axis = 1; axis < axes_.size(); ++axis) {
    offset += row % axes_[axis].size * axes_[axis].strides[input];
    row /= axes_[axis].size;
  }
  return offset;
}

}  // namespace pyquant::native
