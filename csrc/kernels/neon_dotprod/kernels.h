// The kernels for ARM64 with the dot product instructions of ARMv8.2; see kernel_table.h for what
// each function does. Rows of contiguous data are left to scalar.
#pragma once

#include "kernels/kernel_table.h"

namespace pyquant::neon_dotprod {

void convolve_block(const ConvLayout& layout, ConvBlock& block, std::size_t rows,
                    std::size_t pixels);
void interleave(const std::uint8_t* const* rows, std::size_t groups, std::size_t channels,
                std::size_t pixel_stride, std::size_t strips, std::size_t strip_stride,
                std::size_t count, std::uint8_t* columns);
void convolve_depthwise(const DepthwiseBlock& block, const std::uint8_t* columns,
                        std::size_t pixels, std::size_t row_count, void* y);

extern const KernelTable kTable;

}  // namespace pyquant::neon_dotprod
