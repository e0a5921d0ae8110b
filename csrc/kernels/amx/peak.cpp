#include <immintrin.h>

#include "kernels/amx/kernels.h"
#include "kernels/amx/tile_registers.h"

namespace pyquant::amx {

std::size_t multiply_adds(std::size_t loops) {
  constexpr std::size_t kInstructions = 4;  // one in 16 cycles hides a latency of 52
  TileConfiguration configuration;
  for (int i = 0; i < 8; ++i) {
    configuration.rows[i] = 16;
    configuration.row_bytes[i] = 64;
  }
  load(configuration);
  for (std::size_t i = 0; i < loops; ++i) {
    multiply_tiles<0, 4, 6>();
    multiply_tiles<1, 4, 7>();
    multiply_tiles<2, 5, 6>();
    multiply_tiles<3, 5, 7>();
  }
  release_tiles();
  return loops * kInstructions * 16 * 16 * 64;
}

}  // namespace pyquant::amx
