#include "kernels/avx2/convolve_tiles.h"
#include "kernels/avx_vnni/kernels.h"
#include "kernels/avx_vnni/multiply.h"

namespace pyquant::avx_vnni {

void convolve_block(const ConvLayout& layout, ConvBlock& block, std::size_t rows,
                    std::size_t pixels) {
  avx2::convolve_tiles<MultiplyBytes>(layout, block, rows, pixels);
}

}  // namespace pyquant::avx_vnni
