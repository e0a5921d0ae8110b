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

void run_concat(const Operator& op, std::span<const ConstTensorView> inputs,
                const TensorView& output) {
  const auto& concat = std::get<Concat>(op.attributes);
  auto* y = static_cast<std::uint8_t*>(output.data);
  const auto count = static_cast<std::int64_t>(inputs.size());
  if (concat.interleaved) {
    for (std::int64_t i = 0; i < output.shape.elements(); ++i) {
      y[i] = static_cast<const std::uint8_t*>(
          inputs[static_cast<std::size_t>(i % count)].data)[i / count];
    }
    return;
  }
  // A run: the elements of one input at one position of the axes outside of the concatenated one.
  std::int64_t runs = 1;
  for (std::int32_t axis = 0; axis < concat.axis; ++axis) {
    runs *= output.shape[static_cast<std::size_t>(axis)];
  }
  for (std::int64_t run = 0; run < runs; ++run) {
    for (const ConstTensorView& input : inputs) {
      const std::int64_t bytes = input.shape.elements() / runs;
      std::memcpy(y, static_cast<const std::uint8_t*>(input.data) + run * bytes,
                  static_cast<std::size_t>(bytes));
      y += bytes;
    }
  }
}

void run_slice(const Operator& op, std::span<const ConstTensorView> inputs,
               const TensorView& output) {
  const auto& slice = std::get<Slice>(op.attributes);
  const Shape& from = inputs[0].shape;
  const auto* x = static_cast<const std::uint8_t*>(inputs[0].data);
  auto* y = static_cast<std::uint8_t*>(output.data);
  const auto axis = static_cast<std::size_t>(slice.axis);
  std::int64_t inner = 1;
  for (std::size_t i = axis + 1; i < from.rank(); ++i) {
    inner *= from[i];
  }
  const std::int64_t outer = output.shape.elements() / (output.shape[axis] * inner);
  const std::int64_t begin = slice.begin_in(from[axis]);
  const std::int64_t end = slice.end_in(from[axis]);
  for (std::int64_t i = 0; i < outer; ++i) {
    for (std::int64_t j = begin; j < end; ++j) {
      for (std::int64_t k = 0; k < inner; ++k) {
        *y++ = x[(i * from[axis] + j) * inner + k];
      }
    }
  }
}

void run_channel_shuffle(const Operator& op, std::span<const ConstTensorView> inputs,
                         const TensorView& output) {
  const std::int64_t groups = std::get<ChannelShuffle>(op.attributes).groups;
  const std::int64_t channels = output.shape[3];
  const std::int64_t pixels = output.shape.elements() / channels;
  const auto* x = static_cast<const std::uint8_t*>(inputs[0].data);
  auto* y = static_cast<std::uint8_t*>(output.data);
  for (std::int64_t pixel = 0; pixel < pixels; ++pixel) {
    for (std::int64_t i = 0; i < channels / groups; ++i) {
      for (std::int64_t group = 0; group < groups; ++group) {
        *y++ = x[pixel * channels + group * (channels / groups) + i];
      }
    }
  }
}

}  // namespace pyquant::reference
