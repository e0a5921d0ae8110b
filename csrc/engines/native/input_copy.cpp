#include "engines/native/input_copy.h"

#include <algorithm>

namespace pyquant::native {

template <typename Input>
Input* copy_pixels(const ConvImages& images, const std::uint8_t* x, std::int64_t count,
                   Input* target) {
  if (images.pixel_stride == images.channels) {
    return std::copy_n(x, count * images.channels, target);
  }
  for (std::int64_t pixel = 0; pixel < count; ++pixel, x += images.pixel_stride) {
    target = std::copy_n(x, images.channels, target);
  }
  return target;
}

namespace {

// Copies `count` neighbouring pixels of a row of an image; both may be partly or wholly outside.
template <typename Input>
void copy_part_of_row(const ConvImages& images, const std::uint8_t* x, std::int64_t image,
                      std::int64_t row, std::int64_t first, std::int64_t count, Input* target) {
  const auto zero_point = static_cast<Input>(images.zero_point);
  const std::int64_t begin = std::clamp<std::int64_t>(0, first, first + count);
  const std::int64_t end = std::clamp(images.in_w, begin, first + count);
  if (row < 0 || row >= images.in_h || begin == end) {
    std::fill_n(target, count * images.channels, zero_point);
    return;
  }
  target = std::fill_n(target, (begin - first) * images.channels, zero_point);
  const std::int64_t pixel = (image * images.in_h + row) * images.in_w + begin;
  target = copy_pixels(images, x + pixel * images.pixel_stride, end - begin, target);
  std::fill_n(target, (first + count - end) * images.channels, zero_point);
}

// Bytes that gather_columns of the kernels may use behind a row.
constexpr std::int64_t kSlack = 64;

}  // namespace

template <typename Input>
void copy_rows(const ConvImages& images, const std::uint8_t* x, Range rows, Input* target) {
  const Window& window = images.window;
  const std::int64_t image = rows.begin / images.out_h;
  const std::int64_t first = rows.begin % images.out_h * window.stride_h - window.pad_top;
  const std::int64_t count = images.input_rows(rows.end - rows.begin);
  for (std::int64_t row = first; row < first + count; ++row) {
    copy_part_of_row(images, x, image, row, -window.pad_left, images.row_pixels(), target);
    target += images.row_pixels() * images.channels;
  }
}

std::vector<std::uint8_t> outside_row(std::int64_t row_bytes, std::int32_t zero_point) {
  return std::vector<std::uint8_t>(static_cast<std::size_t>(row_bytes + kSlack),
                                   static_cast<std::uint8_t>(zero_point));
}

void gather_columns(const ConvImages& images, const KernelTable& kernels, const std::uint8_t* x,
                    const std::uint8_t* outside, Range rows, std::uint8_t* target) {
  const Window& window = images.window;
  const std::int64_t row_bytes = images.in_w * images.channels;
  const std::int64_t column_bytes = window.kernel_h * images.channels;
  const std::int64_t left = std::min<std::int64_t>(window.pad_left, images.row_pixels());
  const std::int64_t inside = std::min(images.in_w, images.row_pixels() - left);
  const std::int64_t right = images.row_pixels() - left - inside;
  const std::uint8_t* end = x + images.images * images.in_h * row_bytes;
  for (; rows.begin < rows.end; ++rows.begin) {
    const std::uint8_t* image = x + rows.begin / images.out_h * images.in_h * row_bytes;
    std::int64_t row = rows.begin % images.out_h * window.stride_h - window.pad_top;
    const std::uint8_t* sources[kMostGatheredRows];
    std::int64_t slack = kSlack;
    for (std::int32_t i = 0; i < window.kernel_h; ++i, row += window.dilation_h) {
      const bool is_inside = 0 <= row && row < images.in_h;
      sources[i] = is_inside ? image + row * row_bytes : outside;
      slack = is_inside ? std::min(slack, end - (sources[i] + inside * images.channels)) : slack;
    }
    target = std::fill_n(target, left * column_bytes, images.zero_point);
    kernels.gather_columns(sources, static_cast<std::size_t>(window.kernel_h),
                           static_cast<std::size_t>(images.channels),
                           static_cast<std::size_t>(inside), static_cast<std::size_t>(slack),
                           target);
    target = std::fill_n(target + inside * column_bytes, right * column_bytes, images.zero_point);
  }
}

template <typename Input>
void gather(const ConvImages& images, const RunLayout& layout, const std::uint8_t* x, Range pixels,
            Input* target) {
  const Window& window = images.window;
  for (std::int64_t pixel = pixels.begin; pixel < pixels.end; ++pixel) {
    const std::int64_t column = pixel % images.out_w * window.stride_w - window.pad_left;
    const std::int64_t row = pixel / images.out_w % images.out_h * window.stride_h - window.pad_top;
    const std::int64_t image = pixel / images.out_w / images.out_h;
    for (std::int64_t run = 0; run < layout.runs; ++run, target += layout.padded_inputs) {
      const std::int64_t kh = run * layout.pixels / window.kernel_w;
      const std::int64_t kw = run * layout.pixels % window.kernel_w;
      copy_part_of_row(images, x, image, row + kh * window.dilation_h,
                       column + kw * window.dilation_w, layout.pixels, target);
      std::fill(target + layout.inputs, target + layout.padded_inputs, Input{0});
    }
  }
}

template std::uint8_t* copy_pixels(const ConvImages&, const std::uint8_t*, std::int64_t,
                                   std::uint8_t*);
template std::uint16_t* copy_pixels(const ConvImages&, const std::uint8_t*, std::int64_t,
                                    std::uint16_t*);
template void copy_rows(const ConvImages&, const std::uint8_t*, Range, std::uint8_t*);
template void copy_rows(const ConvImages&, const std::uint8_t*, Range, std::uint16_t*);
template void gather(const ConvImages&, const RunLayout&, const std::uint8_t*, Range,
                     std::uint8_t*);
template void gather(const ConvImages&, const RunLayout&, const std::uint8_t*, Range,
                     std::uint16_t*);

}  // namespace pyquant::native
