#include "kernels/neon/convolve_tiles.h"
#include "kernels/neon/kernels.h"
#include "kernels/neon/multiply.h"

namespace pyquant::neon {

void convolve_block(const ConvLayout& layout, ConvBlock& block, std::size_t rows,
                    std::size_t pixels) {
  convolve_tiles<MultiplyWords>(layout, block, rows, pixels);
}

}  // namespace pyquant::neon
