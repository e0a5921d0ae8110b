#include "image.h"

#include <png.h>
#include <turbojpeg.h>

#include <algorithm>
#include <memory>
#include <string>

#include "request_error.h"

namespace server {
namespace {

// Room for the picture, once its size is known.
void allocate(Image& image, std::size_t width, std::size_t height, std::size_t max_pixels) {
  if (width == 0 || height == 0) {
    throw RequestError("the picture has no pixels");
  }
  if (height > max_pixels / width) {
    throw RequestError(413, "the picture of " + std::to_string(width) + " x " +
                                std::to_string(height) + " pixels is too large");
  }
  image.width = width;
  image.height = height;
  image.rgb.resize(3 * width * height);
}

Image decode_jpeg(std::span<const std::byte> file, std::size_t max_pixels) {
  const std::unique_ptr<void, int (*)(tjhandle)> decoder(tjInitDecompress(), tjDestroy);
  const auto check = [&](int result) {
    if (result != 0) {
      throw RequestError(std::string("the JPEG cannot be read: ") + tjGetErrorStr2(decoder.get()));
    }
  };
  const auto* bytes = reinterpret_cast<const unsigned char*>(file.data());
  const auto size = static_cast<unsigned long>(file.size());
  int width = 0, height = 0, subsampling = 0, colorspace = 0;
  check(
      tjDecompressHeader3(decoder.get(), bytes, size, &width, &height, &subsampling, &colorspace));
  Image image;
  allocate(image, static_cast<std::size_t>(width), static_cast<std::size_t>(height), max_pixels);
  check(tjDecompress2(decoder.get(), bytes, size, image.rgb.data(), width, 0, height, TJPF_RGB,
                      TJFLAG_ACCURATEDCT | TJFLAG_LIMITSCANS | TJFLAG_STOPONWARNING));
  return image;
}

Image decode_png(std::span<const std::byte> file, std::size_t max_pixels) {
  png_image png = {};
  png.version = PNG_IMAGE_VERSION;
  const std::unique_ptr<png_image, void (*)(png_image*)> cleanup(&png, png_image_free);
  const auto check = [&](int succeeded) {
    if (succeeded == 0) {
      throw RequestError(std::string("the PNG cannot be read: ") + png.message);
    }
  };
  check(png_image_begin_read_from_memory(&png, file.data(), file.size()));
  png.format = PNG_FORMAT_RGB;
  Image image;
  allocate(image, png.width, png.height, max_pixels);
  const png_color white = {255, 255, 255};
  check(png_image_finish_read(&png, &white, image.rgb.data(), 0, nullptr));
  return image;
}

struct Format {
  std::string_view start;
  Image (*decode)(std::span<const std::byte> file, std::size_t max_pixels);
};

constexpr Format kFormats[] = {{"\xff\xd8\xff", decode_jpeg}, {"\x89PNG", decode_png}};

}  // namespace

Image decode_image(std::span<const std::byte> file, std::size_t max_pixels) {
  const std::string_view bytes(reinterpret_cast<const char*>(file.data()), file.size());
  for (const Format& format : kFormats) {
    if (bytes.starts_with(format.start)) {
      return format.decode(file, max_pixels);
    }
  }
  throw RequestError(415, "the picture is neither a JPEG nor a PNG");
}

}  // namespace server
