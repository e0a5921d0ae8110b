#include "kernels/avx2/convolve_tiles.h"
#include "kernels/avx_vnni/kernels.h"
#include "kernels/avx_vnni/multiply.h"

namespace pyquant::avx_vnni {

void convolve_block(const ConvLayout& layout, ConvBlock& block, const std::uint8_t* x,
                    std::size_t rows, std::size_t pixels, void* y) {
  avx2::convolve_tiles<MultiplyBytes>(layout, block, x, rows, pixels, y);
}

}  // namespace pyquant::avx_vnni
