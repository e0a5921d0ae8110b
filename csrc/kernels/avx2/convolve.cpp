#include "kernels/avx2/convolve_tiles.h"
#include "kernels/avx2/kernels.h"
#include "kernels/avx2/multiply.h"

namespace pyquant::avx2 {

void convolve_block(const ConvLayout& layout, ConvBlock& block, std::size_t rows,
                    std::size_t pixels) {
  convolve_tiles<MultiplyWords>(layout, block, rows, pixels);
}

}  // namespace pyquant::avx2
