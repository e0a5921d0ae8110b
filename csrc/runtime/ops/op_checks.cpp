#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "quant/requantize.h"
#include "runtime/ops/op_definition.h"

namespace pyquant {
namespace {

// Larger kernels, strides or paddings have no use, and products of them cannot overflow.
constexpr std::int32_t kMaxWindow = 1 << 14;
// So that the sum of their magnitudes fits an int32.
constexpr std::int64_t kMaxWeightsPerChannel = 1 << 24;

}  // namespace

void reject_operator(const Operator& op, const std::string& why) {
  throw InvalidProgramError(std::string(kind_name(op.attributes)) + " '" + op.name + "': " + why);
}

void reject_shapes(const Operator& op, const std::string& why) {
  throw InvalidInputError(std::string(kind_name(op.attributes)) + " '" + op.name + "': " + why);
}

void check_activation(const Operator& op, const Operand& operand, const char* role) {
  if (operand.constant.data != nullptr) {
    reject_operator(op, std::string(role) + " is a constant");
  }
  if (operand.dtype == DType::kFloat32) {
    return;
  }
  check_uint8_activation(op, operand, role);
}

void check_uint8_activation(const Operator& op, const Operand& operand, const char* role) {
  if (operand.constant.data != nullptr) {
    reject_operator(op, std::string(role) + " is a constant");
  }
  if (operand.dtype != DType::kUInt8) {
    reject_operator(op, std::string(role) + " is " + to_string(operand.dtype) + ", not uint8");
  }
  const QParams& qparams = operand.qparams;
  if (!std::isnormal(qparams.scale) || qparams.scale < 0.0F) {
    reject_operator(op, std::string(role) + " has scale " + std::to_string(qparams.scale) +
                            "; it must be finite, normal and positive");
  }
  if (qparams.zero_point < 0 || qparams.zero_point > 255) {
    reject_operator(op, std::string(role) + " has zero_point " +
                            std::to_string(qparams.zero_point) + ", outside 0..255");
  }
}

void check_output_bounds(const Operator& op, int output_min, int output_max) {
  if (output_min > output_max) {
    reject_operator(op, "output_min is above output_max");
  }
}

void check_same_qparams(const Operator& op) {
  for (const Operand& input : op.inputs) {
    if (input.qparams != op.output.qparams) {
      reject_operator(op, "input and output must have the same qparams");
    }
  }
}

void check_weight_and_bias(const Operator& op, std::size_t weight_rank) {
  const Operand& weight = op.inputs[1];
  const Operand& bias = op.inputs[2];
  if (weight.constant.data == nullptr || weight.dtype != DType::kInt8 ||
      weight.constant.shape.rank() != weight_rank || weight.channel_scales == nullptr) {
    reject_operator(op, "the weight must be an int8 constant of rank " +
                            std::to_string(weight_rank) + " with one scale per output channel");
  }
  const std::int64_t channels = weight.constant.shape[0];
  if (bias.constant.data == nullptr || bias.dtype != DType::kInt32 ||
      !(bias.constant.shape == Shape{channels})) {
    reject_operator(
        op, "the bias must be an int32 constant of shape [" + std::to_string(channels) + "]");
  }
  const auto* values = static_cast<const std::int8_t*>(weight.constant.data);
  const auto* biases = static_cast<const std::int32_t*>(bias.constant.data);
  const std::int64_t per_channel = weight.constant.shape.elements() / channels;
  if (per_channel >= kMaxWeightsPerChannel) {
    reject_operator(op, "has " + std::to_string(per_channel) + " weights per output channel");
  }
  const std::int64_t zero_point = op.inputs[0].qparams.zero_point;
  const std::int64_t largest_input = std::max(zero_point, 255 - zero_point);
  for (std::int64_t channel = 0; channel < channels; ++channel) {
    const float scale = weight.channel_scales[channel];
    const float multiplier =
        op.output.dtype == DType::kUInt8
            ? requantize_multiplier(op.inputs[0].qparams.scale, scale, op.output.qparams.scale)
            : op.inputs[0].qparams.scale * scale;
    if (!std::isfinite(scale) || scale <= 0.0F || !std::isfinite(multiplier)) {
      reject_operator(op, "the weight's scale of output channel " + std::to_string(channel) +
                              " is " + std::to_string(scale));
    }
    std::int32_t magnitude = 0;
    const std::int8_t* row = values + channel * per_channel;
    for (std::int64_t i = 0; i < per_channel; ++i) {
      magnitude += std::abs(static_cast<std::int32_t>(row[i]));
    }
    const std::int64_t bound =
        magnitude * largest_input + std::abs(static_cast<std::int64_t>(biases[channel]));
    if (bound > INT32_MAX) {
      reject_operator(op, "the accumulator of output channel " + std::to_string(channel) +
                              " can reach " + std::to_string(bound) + " and overflow int32");
    }
  }
}

void check_convolution(const Operator& op, const Window& window, std::int32_t groups) {
  check_uint8_activation(op, op.inputs[0], "the input");
  check_activation(op, op.output, "the output");
  check_window(op, window);
  check_weight_and_bias(op, 4);
  const Shape& weight = op.inputs[1].constant.shape;
  if (weight[1] != window.kernel_h || weight[2] != window.kernel_w) {
    reject_operator(op, "the weight " + weight.to_string() + " does not fit the kernel size");
  }
  if (groups < 1 || weight[0] % groups != 0) {
    reject_operator(op, std::to_string(groups) + " groups do not divide " +
                            std::to_string(weight[0]) + " output channels");
  }
}

void require_channels(const Operator& op, std::span<const Shape> inputs, std::int32_t groups) {
  require_rank(op, inputs[0], 4);
  const std::int64_t channels = inputs[1][3] * groups;
  if (inputs[0][3] != channels) {
    reject_shapes(op, "takes " + std::to_string(channels) + " input channels, not " +
                          std::to_string(inputs[0][3]));
  }
}

void check_window(const Operator& op, const Window& window) {
  const auto within = [](std::int32_t value, std::int32_t low) {
    return value >= low && value <= kMaxWindow;
  };
  if (!within(window.kernel_h, 1) || !within(window.kernel_w, 1) || !within(window.stride_h, 1) ||
      !within(window.stride_w, 1) || !within(window.dilation_h, 1) ||
      !within(window.dilation_w, 1) || !within(window.pad_top, 0) || !within(window.pad_left, 0) ||
      !within(window.pad_bottom, 0) || !within(window.pad_right, 0)) {
    reject_operator(op, "kernel, stride, padding or dilation out of range");
  }
}

void require_rank(const Operator& op, const Shape& shape, std::size_t rank) {
  if (shape.rank() != rank) {
    reject_shapes(
        op, "takes an input of " + std::to_string(rank) + " dimensions, not " + shape.to_string());
  }
}

void require_axis(const Operator& op, const Shape& shape, std::int32_t axis) {
  if (axis < 0 || static_cast<std::size_t>(axis) >= shape.rank()) {
    reject_shapes(
        op, "an input of shape " + shape.to_string() + " has no axis " + std::to_string(axis));
  }
}

Shape broadcast_shape(const Operator& op, std::span<const Shape> inputs) {
  const Shape& a = inputs[0];
  const Shape& b = inputs[1];
  const auto fit = [](std::int64_t one, std::int64_t other) {
    return one == other || one == 1 || other == 1;
  };
  if (a.rank() != b.rank() || !std::equal(a.begin(), a.end(), b.begin(), fit)) {
    reject_shapes(op, "the inputs have shapes " + a.to_string() + " and " + b.to_string() +
                          ", which do not broadcast");
  }
  Shape output = a;
  for (std::size_t axis = 0; axis < a.rank(); ++axis) {
    output[axis] = std::max(a[axis], b[axis]);
  }
  return output;
}

std::int64_t window_positions(const Operator& op, std::int64_t size, std::int32_t kernel,
                              std::int32_t stride, std::int32_t pad_begin, std::int32_t pad_end,
                              std::int32_t dilation, bool ceil_mode) {
  const std::int64_t extent = static_cast<std::int64_t>(dilation) * (kernel - 1) + 1;
  const std::int64_t room = size + pad_begin + pad_end - extent;
  if (room < 0) {
    reject_shapes(op, "the image of size " + std::to_string(size) +
                          " is smaller than the window of size " + std::to_string(extent));
  }
  std::int64_t positions = (room + (ceil_mode ? stride - 1 : 0)) / stride + 1;
  if (ceil_mode && (positions - 1) * stride >= size + pad_begin) {
    --positions;
  }
  return positions;
}

Shape window_output(const Operator& op, const Shape& x, const Window& window, bool ceil_mode,
                    std::int64_t channels) {
  return {x[0],
          window_positions(op, x[1], window.kernel_h, window.stride_h, window.pad_top,
                           window.pad_bottom, window.dilation_h, ceil_mode),
          window_positions(op, x[2], window.kernel_w, window.stride_w, window.pad_left,
                           window.pad_right, window.dilation_w, ceil_mode),
          channels};
}

}  // namespace pyquant
