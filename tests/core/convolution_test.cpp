// Every instruction set of this CPU against the reference engine: random convolutions, with the
// values at which narrow sums would saturate.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "check.h"
#include "kernels/dispatch.h"
#include "pyquant/kernel.h"

namespace {

using namespace pyquant;

struct Case {
  Conv2d conv;
  Shape x, weight;
  std::int32_t input_zero_point = 0, output_zero_point = 100;
  bool float_output = false;
  bool extreme = false;
};

class Generator {
 public:
  explicit Generator(std::uint32_t seed) : engine_(seed) {}

  int draw(int low, int high) { return std::uniform_int_distribution<int>(low, high)(engine_); }
  bool one_in(int count) { return draw(1, count) == 1; }

  Case draw_case() {
    Case result;
    Window& window = result.conv.window;
    window.kernel_h = draw(1, 5);
    window.kernel_w = one_in(4) ? draw(1, 5) : window.kernel_h;
    window.stride_h = window.stride_w = draw(1, 2);
    window.pad_top = window.pad_bottom = draw(0, window.kernel_h / 2);
    window.pad_left = window.pad_right = draw(0, window.kernel_w / 2);
    window.dilation_h = window.dilation_w = one_in(5) ? 2 : 1;
    std::int64_t group_in = draw(1, 40);
    std::int64_t group_out = draw(1, 70);
    if (one_in(3)) {
      result.conv.groups = draw(2, 80);
      group_in = group_out = 1;
    } else if (one_in(4)) {
      result.conv.groups = draw(2, 4);
    }
    result.conv.output_min = static_cast<std::uint8_t>(one_in(2) ? 0 : draw(0, 120));
    result.conv.output_max = static_cast<std::uint8_t>(one_in(2) ? 255 : draw(130, 255));
    // ReLU's lower bound, which kernels may make use of, or another one.
    result.output_zero_point = one_in(2) ? result.conv.output_min : 100;
    const auto extent = [&](int kernel, int dilation) {
      return dilation * (kernel - 1) + (one_in(4) ? draw(26, 40) : draw(1, 25));
    };
    result.x = {draw(1, 2), extent(window.kernel_h, window.dilation_h),
                extent(window.kernel_w, window.dilation_w), group_in * result.conv.groups};
    result.weight = {group_out * result.conv.groups, window.kernel_h, window.kernel_w, group_in};
    result.input_zero_point = one_in(3) ? 255 : draw(0, 255);
    result.float_output = one_in(4);
    result.extreme = one_in(3);
    return result;
  }

 private:
  std::mt19937 engine_;
};

std::vector<std::uint8_t> run(const Case& test, const std::string& engine) {
  Generator generator(7);
  std::vector<std::uint8_t> x(static_cast<std::size_t>(test.x.elements()));
  std::ranges::generate(x, [&] {
    return static_cast<std::uint8_t>(test.extreme ? 255 * generator.draw(0, 1)
                                                  : generator.draw(0, 255));
  });
  std::vector<std::int8_t> weight(static_cast<std::size_t>(test.weight.elements()));
  std::ranges::generate(weight, [&] {
    return static_cast<std::int8_t>(test.extreme ? 254 * generator.draw(0, 1) - 127
                                                 : generator.draw(-127, 127));
  });
  const auto outputs = static_cast<std::size_t>(test.weight[0]);
  std::vector<std::int32_t> bias(outputs);
  std::ranges::generate(bias, [&] { return generator.draw(-10000, 10000); });
  std::vector<float> scales(outputs);
  std::ranges::generate(scales, [&] { return 1e-4F * static_cast<float>(generator.draw(5, 50)); });

  Operator op;
  op.name = "convolution";
  op.attributes = test.conv;
  op.inputs.resize(3);
  op.inputs[0].qparams = {0.05F, test.input_zero_point};
  op.inputs[1].dtype = DType::kInt8;
  op.inputs[1].channel_scales = scales.data();
  op.inputs[1].constant = {DType::kInt8, test.weight, weight.data()};
  op.inputs[2].dtype = DType::kInt32;
  op.inputs[2].constant = {DType::kInt32, {test.weight[0]}, bias.data()};
  op.output.qparams = {0.1F, test.output_zero_point};
  op.output.dtype = test.float_output ? DType::kFloat32 : DType::kUInt8;
  Kernel kernel(op, engine);
  CHECK(kernel.engine() == engine);

  const Shape shape = kernel.output_shape(std::span(&test.x, 1));
  const std::size_t size = test.float_output ? sizeof(float) : 1;
  std::vector<std::uint8_t> y(static_cast<std::size_t>(shape.elements()) * size);
  const ConstTensorView view = {DType::kUInt8, test.x, x.data()};
  kernel.run(std::span(&view, 1), {op.output.dtype, shape, y.data()});
  return y;
}

}  // namespace

int main() {
  Generator generator(1);
  for (int i = 0; i < 150; ++i) {
    const Case test = generator.draw_case();
    const std::vector<std::uint8_t> expected = run(test, "reference");
    for (const std::string& isa : isas()) {
      use_isa(isa);
      if (run(test, "native") != expected) {
        std::fprintf(stderr, "case %d differs on %s\n", i, isa.c_str());
        return 1;
      }
    }
  }
  std::printf("convolution: passed on");
  for (const std::string& isa : isas()) {
    std::printf(" %s", isa.c_str());
  }
  std::puts("");
}
