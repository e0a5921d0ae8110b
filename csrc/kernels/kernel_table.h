// What an instruction set provides: a table of functions over rows of contiguous data. Each ISA
// folder holds files of the same names and fills one table; dispatch.cpp picks one, once.
//
// Pointers need no alignment and no function reads or writes outside the ranges named. All are
// thread-safe. Arithmetic is that of operator.h, bit for bit.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/convolution.h"
#include "kernels/dynamic_kernels.h"
#include "kernels/output_stage.h"

namespace pyquant {

// Beyond this multiplier every product but 0 saturates, and below it every one fits int32.
inline constexpr float kMaxMulMultiplier = 32768.0F;

// One uint8 operand of a product.
struct MulOperand {
  const std::uint8_t* data;
  std::int32_t zero_point;
};

// Of the four pixels that a bilinear interpolation blends.
struct BlendWeights {
  float upper, lower, left, right;
};

// How float32 values become numbers of histogram bins: bins of one width, anchored at zero.
struct BinLayout {
  float low, high;      // values outside are taken as these
  float inverse_width;  // a power of two
  std::int32_t zero;    // the first bin that is not negative
};
// The numbers k * scale of whole k from low to high.
struct RoundingGrid {
  float inverse_scale, scale, low, high;
};

// Elements behind the last bin number that histogram_bins may write.
inline constexpr std::size_t kBinSlack = 16;

struct KernelTable {
  const char* isa;

  // x: `channels` planes of float32, `plane` elements apart; y: `pixels` groups of `channels`
  // uint8. y = clamp(rne(x * inverse_scale) + zero_point).
  void (*quantize_planes)(const float* x, std::ptrdiff_t plane, std::size_t channels,
                          std::size_t pixels, float inverse_scale, OutputRange range,
                          std::uint8_t* y);

  // x: `pixels` groups of `channels` uint8; y: planes as above. y = (x - zero_point) * scale.
  void (*dequantize_planes)(const std::uint8_t* x, std::size_t channels, std::size_t pixels,
                            float scale, std::int32_t zero_point, std::ptrdiff_t plane, float* y);

  // y = clamp(rne(a + b) + zero_point), count elements.
  void (*add)(const std::uint8_t* a, AddOperand a_operand, const std::uint8_t* b,
              AddOperand b_operand, std::size_t count, OutputRange range, std::uint8_t* y);

  // The same with a float32 first operand, multiplied by a_multiplier.
  void (*add_float)(const float* a, float a_multiplier, const std::uint8_t* b, AddOperand b_operand,
                    std::size_t count, OutputRange range, std::uint8_t* y);

  // The largest of some rows, for `pixels` pixels of `count` elements that begin pixel_stride apart
  // in the rows and follow each other in y. row_count >= 1; y is none of the rows.
  void (*max_rows)(const std::uint8_t* const* rows, std::size_t row_count, std::size_t count,
                   std::size_t pixels, std::size_t pixel_stride, std::uint8_t* y);

  // sums[i] += x[i] for each of `pixels` pixels of `count` elements, which begin pixel_stride
  // apart.
  void (*accumulate)(const std::uint8_t* x, std::size_t pixels, std::size_t pixel_stride,
                     std::size_t count, std::int32_t* sums);

  // y = clamp(rne(float(sums - offset) * multiplier) + zero_point), count elements.
  void (*requantize)(const std::int32_t* sums, std::int32_t offset, float multiplier,
                     std::size_t count, OutputRange range, std::uint8_t* y);

  // y = values[x], count elements; values has 256 entries.
  void (*lookup)(const std::uint8_t* x, const std::uint8_t* values, std::size_t count,
                 std::uint8_t* y);

  // y = clamp(rne(float((x - x_zero_point) * (r - r_zero_point)) * multiplier) + zero_point) for
  // `rows` rows of `count` elements: x and y are contiguous, r is one row, repeated.
  // 0 <= multiplier <= kMaxMulMultiplier.
  void (*mul)(MulOperand x, MulOperand r, float multiplier, std::size_t rows, std::size_t count,
              OutputRange range, std::uint8_t* y);

  // Copies `rows` rows of `bytes` bytes each; the rows of x begin x_stride bytes apart, those of y
  // y_stride.
  void (*copy_rows)(const std::uint8_t* x, std::ptrdiff_t x_stride, std::uint8_t* y,
                    std::ptrdiff_t y_stride, std::size_t rows, std::size_t bytes);

  // Rows as above: from one row of `bytes` bytes of a and one of b the 2 * bytes bytes
  // a[0], b[0], a[1], b[1], … of a row of y.
  void (*zip_rows)(const std::uint8_t* a, std::ptrdiff_t a_stride, const std::uint8_t* b,
                   std::ptrdiff_t b_stride, std::uint8_t* y, std::ptrdiff_t y_stride,
                   std::size_t rows, std::size_t bytes);

  // y[c * y_stride + r] = x[r * x_stride + c] for r below rows and c below columns, in bytes.
  void (*transpose)(const std::uint8_t* x, std::ptrdiff_t x_stride, std::size_t rows,
                    std::size_t columns, std::uint8_t* y, std::ptrdiff_t y_stride);

  // One output pixel of ResizeBilinear: y = clamp(rne(t * multiplier) + zero_point), count
  // channels, where t is made of the four pixels as operator.h says.
  void (*blend)(const std::uint8_t* const* pixels, const BlendWeights& weights,
                std::int32_t x_zero_point, float multiplier, std::size_t count, OutputRange range,
                std::uint8_t* y);

  // The smallest and the largest of count >= 1 elements. Returns false, and no numbers to use, if
  // one of them is NaN or infinite.
  bool (*min_max)(const float* x, std::size_t count, float* min, float* max);

  // The bin of each element that is not 0, in no particular order: layout.zero +
  // trunc(v * inverse_width) - (v < 0), where v is the element clamped and |v * inverse_width| is
  // below 2^15. Returns how many they are; bins has room for count + kBinSlack.
  std::size_t (*histogram_bins)(const float* x, std::size_t count, BinLayout layout,
                                std::uint16_t* bins);

  // y = k * scale with k = clamp(rne(x * inverse_scale)), count elements. NaN stays NaN. Bit i % 8
  // of passed[i / 8] tells whether element i was not clamped (that of NaN is 0); the bits behind
  // the last element are 0.
  void (*fake_quantize)(const float* x, std::size_t count, RoundingGrid grid, float* y,
                        std::uint8_t* passed);

  // dx = dy where the bit of `passed` is 1, else 0; count elements. dx may be dy.
  void (*pass_gradient)(const float* dy, const std::uint8_t* passed, std::size_t count, float* dx);

  // Gradients of that, where rounding counts as the identity: dx = dy where nothing was clamped,
  // else 0. Returns the sum of dy * dy/dscale, where dy/dscale is k, less x * inverse_scale where
  // nothing was clamped.
  float (*fake_quantize_backward)(const float* x, const float* dy, std::size_t count,
                                  RoundingGrid grid, float* dx);

  // How the kernels below lay out channels and inputs.
  LaneGeometry geometry;

  // Which post-ops (OutputStage) they do.
  bool adds_residuals = false;
  bool looks_up_tables = false;
  // Whether they take OutputStage::float_sums.
  bool takes_float_sums = false;

  // Makes of `row_count` rows of `count` columns of `channels` bytes each the bytes
  // [column][row][channel]. row_count <= kMostGatheredRows, channels <= kMostGatheredChannels, and
  // `slack` bytes behind each row may be read. Null where it would be slow.
  void (*gather_columns)(const std::uint8_t* const* rows, std::size_t row_count,
                         std::size_t channels, std::size_t count, std::size_t slack,
                         std::uint8_t* y) = nullptr;

  // `rows` rows of `pixels` outputs of each of `count` blocks; a row begins where the one before it
  // ends.
  void (*convolve)(const ConvLayout& layout, ConvBlock* blocks, std::size_t count, std::size_t rows,
                   std::size_t pixels);

  // Makes `count` columns (see DepthwiseBlock) from step_inputs * groups rows of pixels,
  // pixel_stride bytes apart, of which the first `channels` bytes are read. The strips begin
  // strip_stride bytes apart.
  void (*interleave)(const std::uint8_t* const* rows, std::size_t groups, std::size_t channels,
                     std::size_t pixel_stride, std::size_t strips, std::size_t strip_stride,
                     std::size_t count, std::uint8_t* columns);

  // `pixels` outputs of each of the first `row_count` of the block's rows. y: the block's first
  // channel of the first pixel of the first row, uint8 or float32.
  void (*convolve_depthwise)(const DepthwiseBlock& block, const std::uint8_t* columns,
                             std::size_t pixels, std::size_t row_count, void* y);

  // The same, but straight from the image, of the shapes that the instruction set does better so;
  // returns false, and does nothing, for others. Null where there is none.
  bool (*slide_depthwise)(const DepthwiseBlock& block, const DepthwiseRows& image,
                          std::size_t pixels, std::size_t row_count, std::uint8_t* y) = nullptr;

  // For inputs as `convolve` takes them.
  const DynamicKernels* dynamic;

  // Does nothing but the instruction set's fastest multiply-adds of 8-bit numbers, `loops` times as
  // many as fill the pipeline, and returns how many they were. Null where there is no such
  // instruction.
  std::size_t (*multiply_adds)(std::size_t loops) = nullptr;
};

// The table for this CPU, the best one unless use_isa (dispatch.h) or the environment variable
// PYQUANT_ISA names another; throws UnsupportedError where that is unknown or the CPU lacks it.
const KernelTable& kernel_table();

}  // namespace pyquant
