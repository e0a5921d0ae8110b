// What the tile registers hold, in the form that the CPU loads.
#pragma once

#include <cstdint>

namespace pyquant::amx {
namespace {

// Palette 1: eight tiles of up to 16 rows of up to 64 bytes.
struct alignas(64) TileConfiguration {
  std::uint8_t palette = 1;
  std::uint8_t start_row = 0;
  std::uint8_t reserved[14] = {};
  std::uint16_t row_bytes[16] = {};
  std::uint8_t rows[16] = {};
};

// gcc 12's _tile_loadconfig tells the compiler of the first 8 bytes only: it may then leave out the
// stores of the others.
inline void load(const TileConfiguration& configuration) {
  asm volatile("ldtilecfg %0" : : "m"(configuration));
}

}  // namespace
}  // namespace pyquant::amx
