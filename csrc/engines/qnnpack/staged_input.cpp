#include "engines/qnnpack/staged_input.h"

#include <cstring>

#include "engines/qnnpack/qnnpack_api.h"

namespace pyquant::qnnpack_engine {
namespace {

// Keeps the copy aligned.
constexpr std::size_t kGuardBytes = 64;
static_assert(kGuardBytes >= kReadAtOnce);

}  // namespace

StagedInput::StagedInput(const Shape& input, const Border& border, std::uint8_t fill)
    : batch_(input[0]),
      height_(input[1]),
      width_(input[2]),
      channels_(input[3]),
      border_(border),
      fill_(fill) {}

std::size_t StagedInput::scratch_bytes() const {
  return kGuardBytes + static_cast<std::size_t>(batch_ * height() * width() * channels_);
}

const std::uint8_t* StagedInput::copy(const void* input, std::byte* scratch) const {
  const auto row_bytes = static_cast<std::size_t>(width_ * channels_);
  const auto* source = static_cast<const std::uint8_t*>(input);
  auto* const start = reinterpret_cast<std::uint8_t*>(scratch) + kGuardBytes;
  std::uint8_t* target = start;
  const auto fill = [&](std::int64_t pixels) {
    const auto bytes = static_cast<std::size_t>(pixels * channels_);
    std::memset(target, fill_, bytes);
    target += bytes;
  };
  for (std::int64_t image = 0; image < batch_; ++image) {
    fill(border_.top * width());
    for (std::int64_t row = 0; row < height_; ++row) {
      fill(border_.left);
      std::memcpy(target, source, row_bytes);
      source += row_bytes;
      target += row_bytes;
      fill(border_.right);
    }
    fill(border_.bottom * width());
  }
  return start;
}

}  // namespace pyquant::qnnpack_engine
