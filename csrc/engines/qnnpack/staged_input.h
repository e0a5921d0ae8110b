// A copy of an input in scratch memory, with what QNNPACK needs around it.
#pragma once

#include <cstdint>

#include "pyquant/operator.h"

namespace pyquant::qnnpack_engine {

// Pixels around an NHWC image.
struct Border {
  std::int64_t top = 0, left = 0, bottom = 0, right = 0;

  friend bool operator==(const Border&, const Border&) = default;
};

inline Border border_of(const Window& window) {
  return {window.pad_top, window.pad_left, window.pad_bottom, window.pad_right};
}

// QNNPACK pads both sides of an axis alike.
inline bool is_symmetric(const Border& border) {
  return border.top == border.bottom && border.left == border.right;
}

class StagedInput {
 public:
  StagedInput() = default;

  // Copies an NHWC input and puts a border of the value `fill` around each image. There are
  // readable bytes before the copy, see kReadAtOnce.
  StagedInput(const Shape& input, const Border& border, std::uint8_t fill);

  std::size_t scratch_bytes() const;
  std::int64_t height() const { return border_.top + height_ + border_.bottom; }
  std::int64_t width() const { return border_.left + width_ + border_.right; }

  // The copy, which is in `scratch`.
  const std::uint8_t* copy(const void* input, std::byte* scratch) const;

 private:
  std::int64_t batch_ = 0, height_ = 0, width_ = 0, channels_ = 0;
  Border border_;
  std::uint8_t fill_ = 0;
};

}  // namespace pyquant::qnnpack_engine
