// Pictures from files that anybody may have sent.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace server {

struct Image {
  std::size_t width = 0, height = 0;
  std::vector<std::uint8_t> rgb;  // [height, width, 3], sRGB

  std::size_t pixels() const { return width * height; }
};

// Decodes a JPEG or PNG. An EXIF orientation is not followed; what is transparent becomes white.
// Throws RequestError.
Image decode_image(std::span<const std::byte> file, std::size_t max_pixels);

}  // namespace server
