// The tile registers: what they hold, in the form that the CPU loads, and what is done with them.
// The compiler's intrinsics take literal numbers only, so that no template can choose a register.
#pragma once

#include <cstddef>
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

// Frees the operating system from saving the tiles of this thread.
inline void release_tiles() { asm volatile("tilerelease"); }

template <int kTile>
inline void zero_tile() {
  asm volatile("tilezero %%tmm%c0" : : "i"(kTile));
}

// `stride`: bytes from one row of the tile to the next.
template <int kTile>
inline void load_tile(const void* rows, std::ptrdiff_t stride) {
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(rows), "r"(stride), "i"(kTile));
}

template <int kTile>
inline void store_tile(void* rows, std::ptrdiff_t stride) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(rows), "r"(stride), "i"(kTile) : "memory");
}

// sums += unsigned inputs times signed weights.
template <int kSums, int kInputs, int kWeights>
inline void multiply_tiles() {
  asm volatile("tdpbusd %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kSums), "i"(kInputs), "i"(kWeights));
}

}  // namespace
}  // namespace pyquant::amx
