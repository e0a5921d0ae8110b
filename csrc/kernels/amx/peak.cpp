#include <immintrin.h>

#include "kernels/amx/kernels.h"
#include "kernels/amx/tile_configuration.h"

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
    _tile_dpbusd(0, 4, 6);
    _tile_dpbusd(1, 4, 7);
    _tile_dpbusd(2, 5, 6);
    _tile_dpbusd(3, 5, 7);
  }
  _tile_release();
  return loops * kInstructions * 16 * 16 * 64;
}

}  // namespace pyquant::amx
