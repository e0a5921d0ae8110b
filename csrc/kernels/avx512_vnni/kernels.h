// The avx512_vnni kernels; see kernel_table.h for what each function does. The rest is left to
// avx2.
#pragma once

#include "kernels/kernel_table.h"

namespace pyquant::avx512_vnni {

inline constexpr std::size_t kVectorChannels = 16;
inline constexpr std::size_t kBlockVectors = kDepthwiseVectors;
inline constexpr std::size_t kBlockChannels = kVectorChannels * kBlockVectors;
inline constexpr std::size_t kColumnGroupBytes = 4 * kBlockChannels;
inline constexpr LaneGeometry kGeometry = {kVectorChannels, kBlockVectors, 4};

void quantize_planes(const float* x, std::ptrdiff_t plane, std::size_t channels, std::size_t pixels,
                     float inverse_scale, OutputRange range, std::uint8_t* y);
void max_rows(const std::uint8_t* const* rows, std::size_t row_count, std::size_t count,
              std::size_t pixels, std::size_t pixel_stride, std::uint8_t* y);
void accumulate(const std::uint8_t* x, std::size_t pixels, std::size_t pixel_stride,
                std::size_t count, std::int32_t* sums);
void lookup(const std::uint8_t* x, const std::uint8_t* values, std::size_t count, std::uint8_t* y);
bool min_max(const float* x, std::size_t count, float* min, float* max);
std::size_t histogram_bins(const float* x, std::size_t count, BinLayout layout,
                           std::uint16_t* bins);
void fake_quantize(const float* x, std::size_t count, RoundingGrid grid, float* y,
                   std::uint8_t* passed);
void pass_gradient(const float* dy, const std::uint8_t* passed, std::size_t count, float* dx);
float fake_quantize_backward(const float* x, const float* dy, std::size_t count, RoundingGrid grid,
                             float* dx);
void gather_columns(const std::uint8_t* const* rows, std::size_t row_count, std::size_t channels,
                    std::size_t count, std::size_t slack, std::uint8_t* y);
void convolve_block(const ConvLayout& layout, ConvBlock& block, std::size_t rows,
                    std::size_t pixels);
void interleave(const std::uint8_t* const* rows, std::size_t groups, std::size_t channels,
                std::size_t pixel_stride, std::size_t strips, std::size_t strip_stride,
                std::size_t count, std::uint8_t* columns);
void convolve_depthwise(const DepthwiseBlock& block, const std::uint8_t* columns,
                        std::size_t pixels, std::size_t row_count, void* y);
bool slide_depthwise(const DepthwiseBlock& block, const DepthwiseRows& image, std::size_t pixels,
                     std::size_t row_count, std::uint8_t* y);
void mul(MulOperand x, MulOperand r, float multiplier, std::size_t rows, std::size_t count,
         OutputRange range, std::uint8_t* y);

// The outputs of one pixel from `vectors` vectors of accumulators, for the kinds of output that
// need not be fast. y: the first of `channels` outputs.
void store_pixel(const OutputStage& output, const std::int32_t* accumulators,
                 const float* multipliers, std::size_t vectors, std::size_t channels, void* y);

std::size_t multiply_adds(std::size_t loops);

// quantize_planes, lookup and gather_columns need VBMI.
extern const KernelTable kTable, kTableWithoutVbmi;
extern const DynamicKernels kDynamic;

}  // namespace pyquant::avx512_vnni
