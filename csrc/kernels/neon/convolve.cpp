#include "kernels/neon/convolve_tiles.h"
#include "kernels/neon/kernels.h"
#include "kernels/neon/multiply.h"

namespace pyquant::neon {

void convolve_block(const ConvLayout& layout, ConvBlock& block, const std::uint8_t* x,
                    std::size_t rows, std::size_t pixels, void* y) {
  convolve_tiles<MultiplyWords>(layout, block, x, rows, pixels, y);
}

}  // namespace pyquant::neon
