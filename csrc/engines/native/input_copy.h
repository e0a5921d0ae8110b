// Copies of a convolution's input, for what the kernel cannot read where it is.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/kernel_table.h"
#include "pyquant/operator.h"
#include "runtime/thread_pool.h"

namespace pyquant::native {

// The images of one bound shape.
struct ConvImages {
  Window window;
  std::int64_t images = 1, in_h = 1, in_w = 1, out_h = 1, out_w = 1;
  std::int64_t channels = 0;      // of the input
  std::int64_t pixel_stride = 0;  // of the input, in elements: at least its channels
  std::int32_t zero_point = 0;

  // The input pixels under the windows of one output row.
  std::int64_t row_pixels() const {
    return (out_w - 1) * window.stride_w + std::int64_t{window.kernel_w - 1} * window.dilation_w +
           1;
  }
  // The input rows under the windows of `count` output rows.
  std::int64_t input_rows(std::int64_t count) const {
    return (count - 1) * window.stride_h + std::int64_t{window.kernel_h - 1} * window.dilation_h +
           1;
  }
};

// Copies `count` pixels one after the other. Returns the end of the target. Input: uint8_t or
// uint16_t.
template <typename Input>
Input* copy_pixels(const ConvImages& images, const std::uint8_t* x, std::int64_t count,
                   Input* target);

// Copies the input rows under some output rows (of one image, counted over all images), each
// row_pixels() long, with zero points for what is outside the image.
template <typename Input>
void copy_rows(const ConvImages& images, const std::uint8_t* x, Range rows, Input* target);

// A row of zero points, with what gather_columns may read behind it.
std::vector<std::uint8_t> outside_row(std::int64_t row_bytes, std::int32_t zero_point);

// Copies for each of some output rows the input rows under it, [column][kernel_h][channels], with
// zero points for what is outside the image. outside: an outside_row() as long as the image's.
void gather_columns(const ConvImages& images, const KernelTable& kernels, const std::uint8_t* x,
                    const std::uint8_t* outside, Range rows, std::uint8_t* target);

// How the inputs of a pixel are laid out in `gather`: runs of the window's pixels, which are its
// rows or single, each padded to whole steps of the kernel.
struct RunLayout {
  std::int64_t runs, pixels, inputs, padded_inputs;
};

// Copies all inputs of each of some output pixels (counted over all images) to one place.
template <typename Input>
void gather(const ConvImages& images, const RunLayout& layout, const std::uint8_t* x, Range pixels,
            Input* target);

}  // namespace pyquant::native
