#include <algorithm>
#include <cstring>

#include "engines/reference/reference_engine.h"

namespace pyquant::reference {

void run_flatten(const Operator& /*op*/, std::span<const ConstTensorView> inputs,
                 const TensorView& output) {
  const Shape& shape = inputs[0].shape;
  const auto* x = static_cast<const std::uint8_t*>(inputs[0].data);
  auto* y = static_cast<std::uint8_t*>(output.data);
  if (shape.rank() != 4) {
    std::memcpy(y, x, inputs[0].bytes());
    return;
  }
  const std::int64_t pixels = shape[1] * shape[2];
  const std::int64_t channels = shape[3];
  for (std::int64_t n = 0; n < shape[0]; ++n) {
    for (std::int64_t c = 0; c < channels; ++c) {
      for (std::int64_t p = 0; p < pixels; ++p) {
        *y++ = x[(n * pixels + p) * channels + c];
      }
    }
  }
}

void run_reshape(const Operator& op, std::span<const ConstTensorView> inputs,
                 const TensorView& output) {
  const Shape& from = inputs[0].shape;
  const Shape& to = output.shape;
  if (to.rank() != 4) {
    run_flatten(op, inputs, output);
    return;
  }
  const auto* x = static_cast<const std::uint8_t*>(inputs[0].data);
  auto* y = static_cast<std::uint8_t*>(output.data);
  const std::int64_t pixels = to[1] * to[2];
  const std::int64_t from_pixels = from.rank() == 4 ? from[1] * from[2] : 1;
  const std::int64_t from_channels = from.rank() == 4 ? from[3] : 1;
  for (std::int64_t n = 0; n < to[0]; ++n) {
    for (std::int64_t p = 0; p < pixels; ++p) {
      for (std::int64_t c = 0; c < to[3]; ++c) {
        const std::int64_t at = c * pixels + p;  // in the order of the model
        *y++ = x[from.rank() == 4 ? at % from_pixels * from_channels + at / from_pixels : at];
      }
    }
    x += pixels * to[3];
  }
}

void run_pad(const Operator& op, std::span<const ConstTensorView> inputs,
             const TensorView& output) {
  const auto& pad = std::get<Pad>(op.attributes);
  const Shape& from = inputs[0].shape;
  const Shape& to = output.shape;
  const auto* x = static_cast<const std::uint8_t*>(inputs[0].data);
  auto* y = static_cast<std::uint8_t*>(output.data);
  std::memset(y, op.output.qparams.zero_point, output.bytes());
  const std::int64_t first = std::max(pad.left, 0);  // output columns that the image covers
  const std::int64_t last = std::min(to[2], pad.left + from[2]);
  if (first >= last) {
    return;
  }
  for (std::int64_t n = 0; n < to[0]; ++n) {
    for (std::int64_t h = 0; h < to[1]; ++h) {
      const std::int64_t source = h - pad.top;
      if (source < 0 || source >= from[1]) {
        continue;
      }
      std::memcpy(y + ((n * to[1] + h) * to[2] + first) * to[3],
                  x + ((n * from[1] + source) * from[2] + first - pad.left) * from[3],
                  static_cast<std::size_t>((last - first) * to[3]));
    }
  }
}

}  // namespace pyquant::reference
