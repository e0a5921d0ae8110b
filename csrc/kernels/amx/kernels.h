// The kernels for AMX-INT8, which multiplies tiles of 16 rows; see kernel_table.h for what each
// function does. What it does not speed up is left to avx512_vnni and avx2.
#pragma once

#include "kernels/kernel_table.h"

namespace pyquant::amx {

void convolve(const ConvLayout& layout, ConvBlock* blocks, std::size_t count, std::size_t rows,
              std::size_t pixels);

std::size_t multiply_adds(std::size_t loops);

extern const KernelTable kTable;

}  // namespace pyquant::amx
