#include <algorithm>

#include "engines/reference/reference_engine.h"
#include "quant/average.h"
#include "quant/requantize.h"

namespace pyquant::reference {
namespace {

// Half-open ranges of input rows and columns.
struct Region {
  std::int64_t top, bottom, left, right;
};

// Calls pool(image, oh, ow, c) for each output, which returns its value; image is NHWC.
template <typename Pool>
void for_each_output(const ConstTensorView& input, const TensorView& output, const Pool& pool) {
  const Shape& y_shape = output.shape;
  const std::int64_t image_size = input.shape[1] * input.shape[2] * input.shape[3];
  const auto* image = static_cast<const std::uint8_t*>(input.data);
  auto* y = static_cast<std::uint8_t*>(output.data);
  for (std::int64_t n = 0; n < y_shape[0]; ++n, image += image_size) {
    for (std::int64_t oh = 0; oh < y_shape[1]; ++oh) {
      for (std::int64_t ow = 0; ow < y_shape[2]; ++ow) {
        for (std::int64_t c = 0; c < y_shape[3]; ++c) {
          *y++ = pool(image, oh, ow, c);
        }
      }
    }
  }
}

Region adaptive_region(const Shape& x, const Shape& y, std::int64_t oh, std::int64_t ow) {
  return {adaptive_begin(oh, x[1], y[1]), adaptive_end(oh, x[1], y[1]),
          adaptive_begin(ow, x[2], y[2]), adaptive_end(ow, x[2], y[2])};
}

// The average of one channel of an image over `region`, requantized.
std::uint8_t average(const Operator& op, const std::uint8_t* image, const Shape& x,
                     std::int64_t channel, const Region& region, std::int64_t count) {
  const QParams& from = op.inputs[0].qparams;
  const QParams& to = op.output.qparams;
  std::int32_t sum = 0;
  for (std::int64_t h = region.top; h < region.bottom; ++h) {
    for (std::int64_t w = region.left; w < region.right; ++w) {
      sum += image[(h * x[2] + w) * x[3] + channel] - from.zero_point;
    }
  }
  return requantize(sum, average_multiplier(from.scale, to.scale, count), to.zero_point, 0, 255);
}

}  // namespace

void run_max_pool2d(const Operator& op, std::span<const ConstTensorView> inputs,
                    const TensorView& output) {
  const Window& window = std::get<MaxPool2d>(op.attributes).window;
  const Shape& x = inputs[0].shape;
  for_each_output(inputs[0], output, [&](const std::uint8_t* image, auto oh, auto ow, auto c) {
    // A window without a pixel in the image is minus infinity, which quantizes to 0.
    std::uint8_t largest = 0;
    for (std::int64_t kh = 0; kh < window.kernel_h; ++kh) {
      const std::int64_t ih = oh * window.stride_h - window.pad_top + kh * window.dilation_h;
      for (std::int64_t kw = 0; kw < window.kernel_w; ++kw) {
        const std::int64_t iw = ow * window.stride_w - window.pad_left + kw * window.dilation_w;
        if (ih >= 0 && ih < x[1] && iw >= 0 && iw < x[2]) {
          largest = std::max(largest, image[(ih * x[2] + iw) * x[3] + c]);
        }
      }
    }
    return largest;
  });
}

void run_avg_pool2d(const Operator& op, std::span<const ConstTensorView> inputs,
                    const TensorView& output) {
  const auto& pool = std::get<AvgPool2d>(op.attributes);
  const Window& window = pool.window;
  const Shape& x = inputs[0].shape;
  for_each_output(inputs[0], output, [&](const std::uint8_t* image, auto oh, auto ow, auto c) {
    const std::int64_t top = oh * window.stride_h - window.pad_top;
    const std::int64_t left = ow * window.stride_w - window.pad_left;
    const Region inside = {std::max<std::int64_t>(top, 0), std::min(top + window.kernel_h, x[1]),
                           std::max<std::int64_t>(left, 0), std::min(left + window.kernel_w, x[2])};
    return average(op, image, x, c, inside, average_count(pool, x, top, left));
  });
}

void run_adaptive_max_pool2d(const Operator& /*op*/, std::span<const ConstTensorView> inputs,
                             const TensorView& output) {
  const Shape& x = inputs[0].shape;
  for_each_output(inputs[0], output, [&](const std::uint8_t* image, auto oh, auto ow, auto c) {
    const Region region = adaptive_region(x, output.shape, oh, ow);
    std::uint8_t largest = 0;
    for (std::int64_t h = region.top; h < region.bottom; ++h) {
      for (std::int64_t w = region.left; w < region.right; ++w) {
        largest = std::max(largest, image[(h * x[2] + w) * x[3] + c]);
      }
    }
    return largest;
  });
}

void run_adaptive_avg_pool2d(const Operator& op, std::span<const ConstTensorView> inputs,
                             const TensorView& output) {
  const Shape& x = inputs[0].shape;
  for_each_output(inputs[0], output, [&](const std::uint8_t* image, auto oh, auto ow, auto c) {
    const Region region = adaptive_region(x, output.shape, oh, ow);
    const std::int64_t count = (region.bottom - region.top) * (region.right - region.left);
    return average(op, image, x, c, region, count);
  });
}

}  // namespace pyquant::reference
