// The scalar kernels; see kernel_table.h for what each function does.
#pragma once

#include "kernels/kernel_table.h"

namespace pyquant::scalar {

void quantize_planes(const float* x, std::ptrdiff_t plane, std::size_t channels, std::size_t pixels,
                     float inverse_scale, OutputRange range, std::uint8_t* y);
void dequantize_planes(const std::uint8_t* x, std::size_t channels, std::size_t pixels, float scale,
                       std::int32_t zero_point, std::ptrdiff_t plane, float* y);
void add(const std::uint8_t* a, AddOperand a_operand, const std::uint8_t* b, AddOperand b_operand,
         std::size_t count, OutputRange range, std::uint8_t* y);
void add_float(const float* a, float a_multiplier, const std::uint8_t* b, AddOperand b_operand,
               std::size_t count, OutputRange range, std::uint8_t* y);
void max_rows(const std::uint8_t* const* rows, std::size_t row_count, std::size_t count,
              std::size_t pixels, std::size_t pixel_stride, std::uint8_t* y);
void accumulate(const std::uint8_t* x, std::size_t pixels, std::size_t pixel_stride,
                std::size_t count, std::int32_t* sums);
void requantize(const std::int32_t* sums, std::int32_t offset, float multiplier, std::size_t count,
                OutputRange range, std::uint8_t* y);
void lookup(const std::uint8_t* x, const std::uint8_t* values, std::size_t count, std::uint8_t* y);
void copy_rows(const std::uint8_t* x, std::ptrdiff_t x_stride, std::uint8_t* y,
               std::ptrdiff_t y_stride, std::size_t rows, std::size_t bytes);
void zip_rows(const std::uint8_t* a, std::ptrdiff_t a_stride, const std::uint8_t* b,
              std::ptrdiff_t b_stride, std::uint8_t* y, std::ptrdiff_t y_stride, std::size_t rows,
              std::size_t bytes);
void transpose(const std::uint8_t* x, std::ptrdiff_t x_stride, std::size_t rows,
               std::size_t columns, std::uint8_t* y, std::ptrdiff_t y_stride);
void blend(const std::uint8_t* const* pixels, const BlendWeights& weights,
           std::int32_t x_zero_point, float multiplier, std::size_t count, OutputRange range,
           std::uint8_t* y);
void mul(MulOperand x, MulOperand r, float multiplier, std::size_t rows, std::size_t count,
         OutputRange range, std::uint8_t* y);
bool min_max(const float* x, std::size_t count, float* min, float* max);
std::size_t histogram_bins(const float* x, std::size_t count, BinLayout layout,
                           std::uint16_t* bins);
void fake_quantize(const float* x, std::size_t count, RoundingGrid grid, float* y,
                   std::uint8_t* passed);
void pass_gradient(const float* dy, const std::uint8_t* passed, std::size_t count, float* dx);
float fake_quantize_backward(const float* x, const float* dy, std::size_t count, RoundingGrid grid,
                             float* dx);
void convolve_block(const ConvLayout& layout, ConvBlock& block, std::size_t rows,
                    std::size_t pixels);
void interleave(const std::uint8_t* const* rows, std::size_t groups, std::size_t channels,
                std::size_t pixel_stride, std::size_t strips, std::size_t strip_stride,
                std::size_t count, std::uint8_t* columns);
void convolve_depthwise(const DepthwiseBlock& block, const std::uint8_t* columns,
                        std::size_t pixels, std::size_t row_count, void* y);

// The outputs of one pixel from `vectors` vectors of accumulators of any length, for the kinds of
// output that need not be fast. y: the first of `channels` outputs.
void store_pixel(const OutputStage& output, const std::int32_t* accumulators,
                 const float* multipliers, std::size_t vectors, std::size_t vector_channels,
                 std::size_t channels, void* y);

extern const DynamicKernels kDynamicBytes, kDynamicWords;  // by what convolve multiplies
extern const KernelTable kTable;

}  // namespace pyquant::scalar
