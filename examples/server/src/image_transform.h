// From a picture to the model's input, as a bundle's manifest says.
#pragma once

#include <array>
#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "image.h"

namespace server {

// The field "preprocessing" of manifest.json.
struct Preprocessing {
  using Size = std::array<std::size_t, 2>;  // height and width

  std::optional<Size> resize, crop;
  std::vector<float> mean, std;
  float scale = 1.0F / 255;
  std::string color_order = "RGB";
};

// The image is resized with its proportions kept until it just covers `resize`, and the centre of
// size `crop` is cut out: torchvision's Resize, CenterCrop and Normalize, without rounding between
// them.
class ImageTransform {
 public:
  // For an input [batch, channels, height, width]. Throws std::runtime_error if the preprocessing
  // does not give that.
  ImageTransform(Preprocessing preprocessing, std::size_t channels, Preprocessing::Size size);

  // Writes float32 [channels, height, width].
  void apply(const Image& image, std::span<float> output) const;

 private:
  Preprocessing preprocessing_;
  std::vector<std::array<float, 3>> from_rgb_;  // of each channel
  Preprocessing::Size resize_, size_;
};

}  // namespace server
