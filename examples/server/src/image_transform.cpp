#include "image_transform.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <map>
#include <stdexcept>
#include <utility>

namespace server {
namespace {

// What the channels are, from red, green and blue. The grey is ITU-R BT.601 luma, Pillow's "L".
const std::map<std::string, std::vector<std::array<float, 3>>> kColorOrders = {
    {"RGB", {{1, 0, 0}, {0, 1, 0}, {0, 0, 1}}},
    {"BGR", {{0, 0, 1}, {0, 1, 0}, {1, 0, 0}}},
    {"GRAY", {{0.299F, 0.587F, 0.114F}}},
};

// The source pixels from `first` on that one output pixel is made of.
struct Window {
  std::size_t first = 0;
  std::vector<float> weights;
};

// A window for each of the `count` pixels in the middle of `resized` pixels, which `size` source
// pixels are resized to. The filter is a triangle two output pixels wide, but two source pixels at
// least: bilinear with antialiasing, as in Pillow.
std::vector<Window> centred(std::size_t size, std::size_t resized, std::size_t count) {
  const double step = static_cast<double>(size) / static_cast<double>(resized);
  const double reach = std::max(step, 1.0);
  const double offset = std::nearbyint(static_cast<double>(resized - count) / 2);
  std::vector<Window> windows(count);
  for (std::size_t index = 0; index < count; ++index) {
    const double center = (offset + static_cast<double>(index) + 0.5) * step;
    const auto first = static_cast<std::size_t>(std::max(center - reach + 0.5, 0.0));
    const std::size_t end = std::min(static_cast<std::size_t>(center + reach + 0.5), size);
    Window& window = windows[index];
    window.first = first;
    float total = 0;
    for (std::size_t at = first; at < end; ++at) {
      const double distance = std::abs(static_cast<double>(at) + 0.5 - center);
      window.weights.push_back(static_cast<float>(std::max(0.0, 1 - distance / reach)));
      total += window.weights.back();
    }
    for (float& weight : window.weights) {
      weight /= total;
    }
  }
  return windows;
}

// The resized image's height and width: `resize`, but one of them larger for its shape.
Preprocessing::Size covering(const Image& image, const Preprocessing::Size& resize) {
  if (resize[0] * image.width >= resize[1] * image.height) {
    return {resize[0], image.width * resize[0] / image.height};
  }
  return {image.height * resize[1] / image.width, resize[1]};
}

// One line of the source, made as short as the output is wide: [width, 3].
void narrow_line(const std::uint8_t* line, const std::vector<Window>& columns, float* output) {
  for (const Window& column : columns) {
    const std::uint8_t* pixel = line + 3 * column.first;
    float red = 0, green = 0, blue = 0;
    for (const float weight : column.weights) {
      red += weight * static_cast<float>(pixel[0]);
      green += weight * static_cast<float>(pixel[1]);
      blue += weight * static_cast<float>(pixel[2]);
      pixel += 3;
    }
    *output++ = red;
    *output++ = green;
    *output++ = blue;
  }
}

}  // namespace

ImageTransform::ImageTransform(Preprocessing preprocessing, std::size_t channels,
                               Preprocessing::Size size)
    : preprocessing_(std::move(preprocessing)), size_(size) {
  const auto found = kColorOrders.find(preprocessing_.color_order);
  if (found == kColorOrders.end() || found->second.size() != channels) {
    throw std::runtime_error("the manifest's color_order " + preprocessing_.color_order +
                             " does not fit an input of " + std::to_string(channels) + " channels");
  }
  from_rgb_ = found->second;
  resize_ = preprocessing_.resize.value_or(preprocessing_.crop.value_or(size));
  const Preprocessing::Size crop = preprocessing_.crop.value_or(resize_);
  if (crop != size || resize_[0] < crop[0] || resize_[1] < crop[1]) {
    throw std::runtime_error("the manifest's resize and crop do not give the model's input");
  }
  if (preprocessing_.mean.empty()) {
    preprocessing_.mean.assign(channels, 0);
  }
  if (preprocessing_.std.empty()) {
    preprocessing_.std.assign(channels, 1);
  }
  if (preprocessing_.mean.size() != channels || preprocessing_.std.size() != channels) {
    throw std::runtime_error("the manifest's mean and std must have one number for each channel");
  }
}

void ImageTransform::apply(const Image& image, std::span<float> output) const {
  const Preprocessing::Size resized = covering(image, resize_);
  const auto [height, width] = size_;
  const std::vector<Window> rows = centred(image.height, resized[0], height);
  const std::vector<Window> columns = centred(image.width, resized[1], width);

  const std::size_t top = rows.front().first;
  const std::size_t bottom = rows.back().first + rows.back().weights.size();
  const std::size_t line = 3 * width;
  std::vector<float> narrow((bottom - top) * line);
  for (std::size_t y = top; y < bottom; ++y) {
    narrow_line(image.rgb.data() + 3 * image.width * y, columns, narrow.data() + (y - top) * line);
  }

  std::vector<float> sums(line);
  for (std::size_t y = 0; y < height; ++y) {
    std::ranges::fill(sums, 0.0F);
    const float* source = narrow.data() + (rows[y].first - top) * line;
    for (const float weight : rows[y].weights) {
      for (std::size_t i = 0; i < line; ++i) {
        sums[i] += weight * source[i];
      }
      source += line;
    }
    for (std::size_t channel = 0; channel < from_rgb_.size(); ++channel) {
      const std::array<float, 3>& mix = from_rgb_[channel];
      float* target = output.data() + (channel * height + y) * width;
      for (std::size_t x = 0; x < width; ++x) {
        const float* rgb = sums.data() + 3 * x;
        const float value = mix[0] * rgb[0] + mix[1] * rgb[1] + mix[2] * rgb[2];
        target[x] = (value * preprocessing_.scale - preprocessing_.mean[channel]) /
                    preprocessing_.std[channel];
      }
    }
  }
}

}  // namespace server
