// The values of a tensor by channels, in the order in which they lie in memory.
#pragma once

#include <ATen/ATen.h>

#include <algorithm>
#include <cstdint>
#include <optional>

#include "bindings/parallel.h"

namespace pyquant::python {

// [rows, inner]; row r belongs to channel r % channels. The bits that tell something about each
// value begin with a new byte in every row.
struct Planes {
  std::int64_t channels, rows, inner;

  std::int64_t row_bytes() const { return (inner + 7) / 8; }
};

// Of a tensor without gaps in memory, whose dimension `axis` holds the channels; none: there is one
// channel. Throws c10::ValueError if there is no such dimension.
inline Planes planes_of(const at::Tensor& x, std::optional<std::int64_t> axis) {
  const std::int64_t count = x.numel();
  TORCH_CHECK_VALUE(!axis.has_value() || (*axis >= 0 && *axis < x.dim()),
                    "the axis of the channels is not a dimension of the tensor");
  const std::int64_t channels = axis.has_value() ? x.size(*axis) : 1;
  if (count == 0) {
    return {channels, 0, 0};
  }
  const std::int64_t inner = channels > 1 ? x.stride(*axis) : count;
  return {channels, count / inner, inner};
}

struct Part {
  std::int64_t index, channel;
  std::int64_t offset, count;  // of its values
  std::int64_t bits;           // the first byte of its bits
};

// Planes in parts. Which parts there are does not depend on the number of threads.
class Parts {
 public:
  explicit Parts(Planes planes) : planes_(planes), in_row_((planes.inner + kPart - 1) / kPart) {}

  std::int64_t count() const { return planes_.rows * in_row_; }

  Part operator[](std::int64_t index) const {
    const std::int64_t row = index / in_row_;
    const std::int64_t begin = index % in_row_ * kPart;
    return {index, row % planes_.channels, row * planes_.inner + begin,
            std::min(kPart, planes_.inner - begin), row * planes_.row_bytes() + begin / 8};
  }

  template <typename Visit>
  void each(const Visit& visit) const {
    parallel_for(count(), grain(), [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t index = begin; index < end; ++index) {
        visit((*this)[index]);
      }
    });
  }

  // The same from the last to the first: what `each` visited last may still be in the cache.
  template <typename Visit>
  void each_backwards(const Visit& visit) const {
    parallel_for(count(), grain(), [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t index = end; index-- > begin;) {
        visit((*this)[index]);
      }
    });
  }

 private:
  static constexpr std::int64_t kPart = 16384;   // values that are handled in one go: whole bytes
  static constexpr std::int64_t kGrain = 65536;  // values that are worth another thread

  std::int64_t grain() const {
    return std::max<std::int64_t>(kGrain / std::clamp<std::int64_t>(planes_.inner, 1, kPart), 1);
  }

  Planes planes_;
  std::int64_t in_row_;
};

}  // namespace pyquant::python
