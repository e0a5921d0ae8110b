#include "kernels/neon/convolve_tiles.h"
#include "kernels/neon_dotprod/kernels.h"
#include "kernels/neon_dotprod/multiply.h"

namespace pyquant::neon_dotprod {

void convolve_block(const ConvLayout& layout, ConvBlock& block, const std::uint8_t* x,
                    std::size_t rows, std::size_t pixels, void* y) {
  neon::convolve_tiles<MultiplyBytes>(layout, block, x, rows, pixels, y);
}

}  // namespace pyquant::neon_dotprod
