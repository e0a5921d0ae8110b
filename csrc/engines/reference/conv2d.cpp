#include "engines/reference/reference_engine.h"
#include "quant/requantize.h"

namespace pyquant::reference {
namespace {

// Writes one accumulator of output channel `channel` at element `index`.
void store(const Operator& op, std::int32_t accumulator, std::int64_t channel, std::int32_t low,
           std::int32_t high, const TensorView& output, std::int64_t index) {
  const float input_scale = op.inputs[0].qparams.scale;
  const float weight_scale = op.inputs[1].channel_scales[channel];
  if (output.dtype == DType::kFloat32) {
    static_cast<float*>(output.data)[index] =
        static_cast<float>(accumulator) * (input_scale * weight_scale);
    return;
  }
  const QParams& qparams = op.output.qparams;
  static_cast<std::uint8_t*>(output.data)[index] =
      requantize(accumulator, requantize_multiplier(input_scale, weight_scale, qparams.scale),
                 qparams.zero_point, low, high);
}

// A convolution in either direction. input_row(oh, kh) and input_column(ow, kw): the input pixel
// that a kernel pixel meets for an output pixel; a number outside the image where there is none.
template <typename Attributes, typename InputRow, typename InputColumn>
void convolve(const Operator& op, const Attributes& conv, std::span<const ConstTensorView> inputs,
              const TensorView& output, InputRow input_row, InputColumn input_column) {
  const Window& window = conv.window;
  const Shape& x_shape = inputs[0].shape;
  const Shape& w_shape = op.inputs[1].constant.shape;
  const Shape& y_shape = output.shape;
  const auto* x = static_cast<const std::uint8_t*>(inputs[0].data);
  const auto* weight = static_cast<const std::int8_t*>(op.inputs[1].constant.data);
  const auto* bias = static_cast<const std::int32_t*>(op.inputs[2].constant.data);
  const std::int32_t zero_point = op.inputs[0].qparams.zero_point;
  const std::int64_t group_in = w_shape[3];
  const std::int64_t group_out = w_shape[0] / conv.groups;

  std::int64_t index = 0;
  for (std::int64_t n = 0; n < y_shape[0]; ++n) {
    for (std::int64_t oh = 0; oh < y_shape[1]; ++oh) {
      for (std::int64_t ow = 0; ow < y_shape[2]; ++ow) {
        for (std::int64_t o = 0; o < y_shape[3]; ++o) {
          const std::int64_t first_in = o / group_out * group_in;
          std::int32_t accumulator = bias[o];
          for (std::int64_t kh = 0; kh < window.kernel_h; ++kh) {
            const std::int64_t ih = input_row(oh, kh);
            if (ih < 0 || ih >= x_shape[1]) {
              continue;
            }
            for (std::int64_t kw = 0; kw < window.kernel_w; ++kw) {
              const std::int64_t iw = input_column(ow, kw);
              if (iw < 0 || iw >= x_shape[2]) {
                continue;
              }
              const std::uint8_t* pixel =
                  x + ((n * x_shape[1] + ih) * x_shape[2] + iw) * x_shape[3] + first_in;
              const std::int8_t* taps =
                  weight + ((o * window.kernel_h + kh) * window.kernel_w + kw) * group_in;
              for (std::int64_t i = 0; i < group_in; ++i) {
                accumulator += (pixel[i] - zero_point) * taps[i];
              }
            }
          }
          store(op, accumulator, o, conv.output_min, conv.output_max, output, index++);
        }
      }
    }
  }
}

// position / stride where that is a whole number, else -1.
std::int64_t divide_exactly(std::int64_t position, std::int64_t stride) {
  return position % stride == 0 ? position / stride : -1;
}

}  // namespace

void run_conv2d(const Operator& op, std::span<const ConstTensorView> inputs,
                const TensorView& output) {
  const auto& conv = std::get<Conv2d>(op.attributes);
  const Window& window = conv.window;
  convolve(
      op, conv, inputs, output,
      [&](std::int64_t oh, std::int64_t kh) {
        return oh * window.stride_h - window.pad_top + kh * window.dilation_h;
      },
      [&](std::int64_t ow, std::int64_t kw) {
        return ow * window.stride_w - window.pad_left + kw * window.dilation_w;
      });
}

void run_conv_transpose2d(const Operator& op, std::span<const ConstTensorView> inputs,
                          const TensorView& output) {
  const auto& conv = std::get<ConvTranspose2d>(op.attributes);
  const Window& window = conv.window;
  convolve(
      op, conv, inputs, output,
      [&](std::int64_t oh, std::int64_t kh) {
        return divide_exactly(oh + window.pad_top - kh * window.dilation_h, window.stride_h);
      },
      [&](std::int64_t ow, std::int64_t kw) {
        return divide_exactly(ow + window.pad_left - kw * window.dilation_w, window.stride_w);
      });
}

void run_linear(const Operator& op, std::span<const ConstTensorView> inputs,
                const TensorView& output) {
  const auto& linear = std::get<Linear>(op.attributes);
  const auto* x = static_cast<const std::uint8_t*>(inputs[0].data);
  const auto* weight = static_cast<const std::int8_t*>(op.inputs[1].constant.data);
  const auto* bias = static_cast<const std::int32_t*>(op.inputs[2].constant.data);
  const std::int32_t zero_point = op.inputs[0].qparams.zero_point;
  const std::int64_t features_out = op.inputs[1].constant.shape[0];
  const std::int64_t features_in = op.inputs[1].constant.shape[1];
  const std::int64_t rows = inputs[0].shape.elements() / features_in;
  for (std::int64_t row = 0; row < rows; ++row) {
    for (std::int64_t o = 0; o < features_out; ++o) {
      std::int32_t accumulator = bias[o];
      for (std::int64_t i = 0; i < features_in; ++i) {
        accumulator += (x[row * features_in + i] - zero_point) * weight[o * features_in + i];
      }
      store(op, accumulator, o, linear.output_min, linear.output_max, output,
            row * features_out + o);
    }
  }
}

}  // namespace pyquant::reference
