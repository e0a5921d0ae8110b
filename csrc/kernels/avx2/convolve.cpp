#include "kernels/avx2/convolve_tiles.h"
#include "kernels/avx2/kernels.h"
#include "kernels/avx2/multiply.h"

namespace pyquant::avx2 {

void convolve_block(const ConvLayout& layout, ConvBlock& block, const std::uint8_t* x,
                    std::size_t rows, std::size_t pixels, void* y) {
  convolve_tiles<MultiplyWords>(layout, block, x, rows, pixels, y);
}

}  // namespace pyquant::avx2
