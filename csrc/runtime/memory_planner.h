// Places tensors that live at different times into one arena.
#pragma once

#include <cstddef>
#include <vector>

#include "runtime/aligned_buffer.h"

namespace pyquant {

// Tensors and scratch start at multiples of this, and the bytes up to the next multiple are theirs.
inline constexpr std::size_t kArenaAlignment = AlignedBuffer::kAlignment;

struct Lifetime {
  std::size_t bytes;
  std::size_t first, last;  // steps, inclusive
  std::size_t offset = 0;   // the result
};

// Sets every offset so that no two lifetimes that share a step overlap, and returns the arena's
// size. Largest first, each into the tightest gap that fits it (best fit; "greedy by size" of
// Pisarchyk and Lee, "Efficient Memory Management for Deep Neural Net Inference", 2020).
std::size_t plan_memory(std::vector<Lifetime>& lifetimes);

}  // namespace pyquant
