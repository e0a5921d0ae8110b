#include "dynamic/matrix.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <string>

#include "pyquant/error.h"

namespace pyquant {
namespace {

// Rows whose sums for one block of channels fit the first-level cache.
constexpr std::size_t kSumRows = 128;

std::size_t round_up(std::size_t value, std::size_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

// Whole steps; and for long rows, where it costs little, the full width of AMX tiles.
std::size_t pad_inputs(std::size_t inputs) { return round_up(inputs, inputs < 256 ? 4 : 64); }

void check(const Int8Weights& weights, const std::string& name) {
  const auto count = [](std::int64_t value) { return static_cast<std::size_t>(value); };
  if (weights.outputs < 1 || weights.inputs < 1) {
    throw InvalidInputError(name + " has no inputs or no outputs");
  }
  if (weights.inputs > DynamicLinear::kMaxInputs) {
    throw UnsupportedError(name + " has " + std::to_string(weights.inputs) +
                           " inputs; sums of more than " +
                           std::to_string(DynamicLinear::kMaxInputs) + " may not fit int32");
  }
  if (weights.values.size() != count(weights.outputs) * count(weights.inputs) ||
      weights.scales.size() != count(weights.outputs) ||
      (!weights.bias.empty() && weights.bias.size() != count(weights.outputs))) {
    throw InvalidInputError(name + ": weights, scales and bias do not fit [" +
                            std::to_string(weights.outputs) + ", " +
                            std::to_string(weights.inputs) + "]");
  }
}

// The weights in an order of channels in which the kernel's lanes hold them one after the other, so
// that sums can be stored as they are. Channels and inputs are padded with zeros.
native::PackedWeights pack(const Int8Weights& weights, std::size_t padded_inputs) {
  const LaneGeometry& geometry = kernel_table().geometry;
  const auto outputs = static_cast<std::size_t>(weights.outputs);
  const auto inputs = static_cast<std::size_t>(weights.inputs);
  const std::size_t channels = round_up(outputs, geometry.vector_channels);
  const std::size_t block = geometry.vector_channels * geometry.block_vectors;
  std::vector<std::int8_t> ordered(channels * padded_inputs);
  for (std::size_t output = 0; output < outputs; ++output) {
    const std::size_t first = output / block * block;
    const std::size_t vectors = std::min(block, channels - first) / geometry.vector_channels;
    const std::size_t position = output - first;
    const std::size_t channel = first + lane_channel(vectors, position / geometry.vector_channels,
                                                     position % geometry.vector_channels);
    std::memcpy(ordered.data() + channel * padded_inputs, weights.values.data() + output * inputs,
                inputs);
  }
  const std::vector<float> scales(channels, 1.0F);
  const std::vector<std::int32_t> bias(channels, 0);
  const auto size = [](std::size_t value) { return static_cast<std::int64_t>(value); };
  Operator op;
  op.attributes = Linear{};
  op.inputs.resize(3);
  op.inputs[1].channel_scales = scales.data();
  op.inputs[1].constant = {DType::kInt8, {size(channels), size(padded_inputs)}, ordered.data()};
  op.inputs[2].constant = {DType::kInt32, {size(channels)}, bias.data()};
  op.output.dtype = DType::kFloat32;
  return native::PackedWeights(native::ConvLayer(op));
}

}  // namespace

DynamicMatrix::DynamicMatrix(const Int8Weights& weights, const char* name)
    : inputs_((check(weights, name), static_cast<std::size_t>(weights.inputs))),
      outputs_(static_cast<std::size_t>(weights.outputs)),
      padded_inputs_(pad_inputs(inputs_)),
      kernels_(kernel_table()),
      packed_(pack(weights, padded_inputs_)) {
  row_bytes_ = padded_inputs_ * 4 / kernels_.geometry.step_inputs;
  const std::size_t channels = round_up(outputs_, kernels_.geometry.vector_channels);
  constants_.reserve(3 * channels * sizeof(float));
  std::memset(constants_.data(), 0, constants_.size());
  auto* sums = reinterpret_cast<std::int32_t*>(constants_.data());
  auto* scales = reinterpret_cast<float*>(sums + channels);
  float* bias = scales + channels;
  for (std::size_t output = 0; output < outputs_; ++output) {
    const auto row = weights.values.subspan(output * inputs_, inputs_);
    sums[output] = std::accumulate(row.begin(), row.end(), std::int32_t{0});
  }
  std::ranges::copy(weights.scales, scales);
  std::ranges::copy(weights.bias, bias);
  channels_ = {sums, scales, bias};
}

std::size_t DynamicMatrix::sums() const {
  return kSumRows * kernels_.geometry.vector_channels * kernels_.geometry.block_vectors;
}

void DynamicMatrix::quantize(const float* x, std::size_t x_stride, std::size_t rows,
                             const QuantizedRows& to, std::size_t first) const {
  kernels_.dynamic->quantize_rows(x, x_stride, rows, inputs_, padded_inputs_,
                                  to.inputs + first * row_bytes_, to.qparams + first);
}

void DynamicMatrix::multiply(const QuantizedRows& x, std::size_t rows, Range blocks,
                             std::int32_t* sums, float* y, std::size_t y_stride) const {
  const std::ptrdiff_t tap = 0;
  ConvLayout layout{};
  layout.taps = &tap;
  layout.tap_count = 1;
  layout.steps = packed_.steps();
  layout.pixel_stride = static_cast<std::ptrdiff_t>(row_bytes_);
  layout.output.kind = OutputStage::Kind::kInt32;
  for (std::int64_t index = blocks.begin; index < blocks.end; ++index) {
    const native::LaneBlock& lanes = packed_.blocks()[static_cast<std::size_t>(index)].lanes;
    const auto first = static_cast<std::size_t>(lanes.first_channel);
    layout.output_stride = lanes.lanes();
    const ChannelConstants constants = {channels_.weight_sums + first, channels_.scales + first,
                                        channels_.bias + first};
    for (std::size_t row = 0; row < rows; row += kSumRows) {
      const std::size_t count = std::min(kSumRows, rows - row);
      ConvBlock block = packed_.block(static_cast<std::size_t>(index));
      block.x = x.inputs + row * row_bytes_;
      block.y = sums;
      kernels_.convolve(layout, &block, 1, 1, count);
      kernels_.dynamic->dequantize_rows(sums, lanes.lanes(), count, x.qparams + row, constants,
                                        std::min(lanes.lanes(), outputs_ - first),
                                        y + row * y_stride + first, y_stride);
    }
  }
}

}  // namespace pyquant
