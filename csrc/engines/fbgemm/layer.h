// Conv2d and Linear as one thing: a convolution over NHWC images.
#pragma once

#include <cstdint>
#include <string>

#include "pyquant/operator.h"

namespace pyquant::fbgemm_engine {

struct Layer {
  explicit Layer(const Operator& op);

  // Weights of one output channel.
  std::int32_t depth() const { return window.kernel_h * window.kernel_w * (in_channels / groups); }

  std::size_t weight_count() const {
    return static_cast<std::size_t>(out_channels) * static_cast<std::size_t>(depth());
  }

  std::string name;
  Window window;  // a Linear has the default, 1x1
  std::int32_t groups = 1;
  std::int32_t in_channels = 0, out_channels = 0;
  std::int32_t input_zero_point = 0;
  const std::int8_t* weights = nullptr;  // [out_channels, depth()], borrowed from the Operator
};

// The images of one bound shape. A pointwise convolution needs no neighbours, so that its pixels
// (and a Linear's rows) are images of one pixel.
struct Images {
  Images() = default;
  // Throws InvalidInputError if an index into the input or the output would not fit FBGEMM's int.
  Images(const Layer& layer, const Shape& input, const Shape& output);

  std::int64_t out_pixels() const { return std::int64_t{batch} * out_h * out_w; }

  std::int32_t batch = 0;
  std::int32_t in_h = 1, in_w = 1;
  std::int32_t out_h = 1, out_w = 1;
};

}  // namespace pyquant::fbgemm_engine
