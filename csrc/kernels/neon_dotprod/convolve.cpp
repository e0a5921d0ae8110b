#include "kernels/neon/convolve_tiles.h"
#include "kernels/neon_dotprod/kernels.h"
#include "kernels/neon_dotprod/multiply.h"

namespace pyquant::neon_dotprod {

void convolve_block(const ConvLayout& layout, ConvBlock& block, std::size_t rows,
                    std::size_t pixels) {
  neon::convolve_tiles<MultiplyBytes>(layout, block, rows, pixels);
}

}  // namespace pyquant::neon_dotprod
