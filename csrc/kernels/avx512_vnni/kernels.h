// The avx512_vnni kernels; see kernel_table.h for what each function does. Rows of contiguous data
// are left to avx2: they are bound by memory.
#pragma once

#include "kernels/kernel_table.h"

namespace pyquant::avx512_vnni {

void convolve(const ConvLayout& layout, ConvBlock& block, const std::uint8_t* x, std::size_t rows,
              std::size_t pixels, void* y);
void interleave(const std::uint8_t* const* rows, std::size_t groups, std::size_t channels,
                std::size_t pixel_stride, std::size_t strips, std::size_t strip_stride,
                std::size_t count, std::uint8_t* columns);
void convolve_depthwise(const DepthwiseBlock& block, const std::uint8_t* columns,
                        std::size_t pixels, std::size_t row_count, void* y);

// The outputs of one pixel from `vectors` vectors of accumulators, for the kinds of output that
// need not be fast. y: the first of `channels` outputs.
void store_pixel(const OutputStage& output, const std::int32_t* accumulators,
                 const float* multipliers, std::size_t vectors, std::size_t channels, void* y);

std::size_t multiply_adds(std::size_t loops);

extern const KernelTable kTable;

}  // namespace pyquant::avx512_vnni
