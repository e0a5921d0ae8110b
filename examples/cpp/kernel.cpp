// One fused operator without a Program: a 3x3 convolution, its BatchNorm and its ReLU in int8,
// compared with the same in float32.
#include <pyquant/kernel.h>
#include <pyquant/quantize_weight.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <random>
#include <vector>

namespace {

constexpr std::int64_t kHeight = 16, kWidth = 16, kIn = 8, kOut = 12;
constexpr pyquant::QParams kInput = {0.02F, 128};  // -2.56 to 2.54
constexpr pyquant::QParams kOutput = {0.03F, 0};   // 0 to 7.65

std::vector<float> draw(std::size_t count, float low, float high, std::uint32_t seed) {
  std::mt19937 engine(seed);
  std::uniform_real_distribution<float> distribution(low, high);
  std::vector<float> values(count);
  std::ranges::generate(values, [&] { return distribution(engine); });
  return values;
}

// relu(conv(x)) for x [kHeight, kWidth, kIn], weight [kOut, 3, 3, kIn] and padding 1.
std::vector<float> float_convolution(const std::vector<float>& x, const std::vector<float>& weight,
                                     const std::vector<float>& bias) {
  std::vector<float> y;
  for (std::int64_t row = 0; row < kHeight; ++row) {
    for (std::int64_t column = 0; column < kWidth; ++column) {
      for (std::int64_t out = 0; out < kOut; ++out) {
        float sum = bias[out];
        for (std::int64_t tap = 0; tap < 9; ++tap) {
          const std::int64_t i = row + tap / 3 - 1, j = column + tap % 3 - 1;
          if (i < 0 || i >= kHeight || j < 0 || j >= kWidth) {
            continue;
          }
          for (std::int64_t in = 0; in < kIn; ++in) {
            sum += x[(i * kWidth + j) * kIn + in] * weight[(out * 9 + tap) * kIn + in];
          }
        }
        y.push_back(std::max(sum, 0.0F));
      }
    }
  }
  return y;
}

}  // namespace

int main() {
  using namespace pyquant;

  // The BatchNorm goes into the weight, and that becomes int8.
  std::vector<float> weight = draw(kOut * 9 * kIn, -0.2F, 0.2F, 1);
  std::vector<float> bias = draw(kOut, -0.5F, 0.5F, 2);
  const std::vector<float> mean = draw(kOut, -0.2F, 0.2F, 3), variance = draw(kOut, 0.5F, 2, 4),
                           gamma = draw(kOut, 0.5F, 1.5F, 5), beta = draw(kOut, -0.5F, 0.5F, 6);
  fold_batch_norm({mean, variance, gamma, beta}, weight, bias);
  const QuantizedWeight quantized = quantize_weight(weight, bias, kInput.scale);

  Operator op;
  op.name = "conv_bn_relu";
  // A ReLU is a lower bound of the output: zero_point, which is 0 here.
  Conv2d conv;
  conv.window = {
      .kernel_h = 3, .kernel_w = 3, .pad_top = 1, .pad_left = 1, .pad_bottom = 1, .pad_right = 1};
  conv.output_min = static_cast<std::uint8_t>(kOutput.zero_point);
  op.attributes = conv;
  op.inputs.resize(3);
  op.inputs[0].qparams = kInput;
  op.inputs[1].dtype = DType::kInt8;
  op.inputs[1].channel_scales = quantized.scales.data();
  op.inputs[1].constant = {DType::kInt8, {kOut, 3, 3, kIn}, quantized.values.data()};
  op.inputs[2].dtype = DType::kInt32;
  op.inputs[2].constant = {DType::kInt32, {kOut}, quantized.bias.data()};
  op.output.qparams = kOutput;

  Kernel kernel(op);  // packs the weights; `quantized` may go now

  const std::vector<float> x = draw(kHeight * kWidth * kIn, -2.5F, 2.5F, 7);
  std::vector<std::uint8_t> x8;
  for (const float value : x) {
    const float q = std::nearbyint(value / kInput.scale) + static_cast<float>(kInput.zero_point);
    x8.push_back(static_cast<std::uint8_t>(std::clamp(q, 0.0F, 255.0F)));
  }
  const Shape x_shape = {1, kHeight, kWidth, kIn};
  const Shape y_shape = kernel.output_shape({&x_shape, 1});
  std::vector<std::uint8_t> y8(static_cast<std::size_t>(y_shape.elements()));
  const ConstTensorView input = {DType::kUInt8, x_shape, x8.data()};
  kernel.run({&input, 1}, {DType::kUInt8, y_shape, y8.data()});

  const std::vector<float> y = float_convolution(x, weight, bias);
  double signal = 0, noise = 0;
  for (std::size_t i = 0; i < y.size(); ++i) {
    const double clamped = std::min(y[i], 255 * kOutput.scale);
    const double error = (y8[i] - kOutput.zero_point) * kOutput.scale - clamped;
    signal += clamped * clamped;
    noise += error * error;
  }
  const double sqnr = 10 * std::log10(signal / noise);
  std::printf("engine %s, output %s, SQNR %.1f dB\n", kernel.engine().c_str(),
              y_shape.to_string().c_str(), sqnr);
  return sqnr > 30 ? 0 : 1;
}
