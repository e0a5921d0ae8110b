#include "runtime/memory_planner.h"

#include <algorithm>
#include <cstdint>
#include <numeric>

namespace pyquant {
namespace {

bool overlap_in_time(const Lifetime& a, const Lifetime& b) {
  return a.first <= b.last && b.first <= a.last;
}

}  // namespace

std::size_t plan_memory(std::vector<Lifetime>& lifetimes) {
  std::vector<std::size_t> order(lifetimes.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::stable_sort(
      order, [&](std::size_t a, std::size_t b) { return lifetimes[a].bytes > lifetimes[b].bytes; });

  std::size_t arena = 0;
  std::vector<std::size_t> placed;  // indices, by ascending offset
  for (const std::size_t index : order) {
    Lifetime& tensor = lifetimes[index];
    const std::size_t bytes = align_to_cache_line(tensor.bytes);
    std::size_t best_offset = 0;
    std::size_t best_gap = SIZE_MAX;
    std::size_t end = 0;  // of what is placed so far and lives at the same time
    for (const std::size_t other_index : placed) {
      const Lifetime& other = lifetimes[other_index];
      if (!overlap_in_time(tensor, other)) {
        continue;
      }
      if (other.offset >= end + bytes && other.offset - end < best_gap) {
        best_gap = other.offset - end;
        best_offset = end;
      }
      end = std::max(end, other.offset + align_to_cache_line(other.bytes));
    }
    tensor.offset = best_gap == SIZE_MAX ? end : best_offset;
    arena = std::max(arena, tensor.offset + bytes);
    const auto position = std::ranges::lower_bound(
        placed, tensor.offset, {}, [&](std::size_t i) { return lifetimes[i].offset; });
    placed.insert(position, index);
  }
  return arena;
}

}  // namespace pyquant
