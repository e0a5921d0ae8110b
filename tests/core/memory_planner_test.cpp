// Random lifetimes: what lives at the same time never overlaps, and the arena is neither smaller
// than the peak nor larger than all tensors side by side.
#include "runtime/memory_planner.h"

#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include "check.h"

namespace {

using pyquant::kArenaAlignment;
using pyquant::Lifetime;

std::size_t aligned(std::size_t bytes) {
  return (bytes + kArenaAlignment - 1) / kArenaAlignment * kArenaAlignment;
}

void check_plan(const std::vector<Lifetime>& lifetimes, std::size_t arena) {
  std::size_t peak = 0;
  std::size_t total = 0;
  for (const Lifetime& a : lifetimes) {
    CHECK(a.offset % kArenaAlignment == 0);
    CHECK(a.offset + aligned(a.bytes) <= arena);
    total += aligned(a.bytes);
    // The peak is reached when some tensor begins to live.
    std::size_t alive = 0;
    for (const Lifetime& b : lifetimes) {
      if (b.first <= a.first && a.first <= b.last) {
        alive += aligned(b.bytes);
      }
      const bool together = a.first <= b.last && b.first <= a.last;
      if (&a != &b && together && a.bytes != 0 && b.bytes != 0) {
        CHECK(a.offset + aligned(a.bytes) <= b.offset || b.offset + aligned(b.bytes) <= a.offset);
      }
    }
    peak = std::max(peak, alive);
  }
  CHECK(arena >= peak);
  CHECK(arena <= total);
}

void test_random_lifetimes() {
  std::mt19937 random(1);
  const auto draw = [&](std::size_t low, std::size_t high) {
    return std::uniform_int_distribution<std::size_t>(low, high)(random);
  };
  for (int round = 0; round < 3000; ++round) {
    const std::size_t steps = draw(1, 40);
    const std::size_t largest = round % 3 == 0 ? 200 : 100000;
    std::vector<Lifetime> lifetimes(draw(0, 60));
    for (Lifetime& lifetime : lifetimes) {
      lifetime.bytes = draw(0, largest);
      lifetime.first = draw(0, steps);
      lifetime.last = std::min(steps, lifetime.first + draw(0, round % 2 == 0 ? 3 : steps));
    }
    check_plan(lifetimes, pyquant::plan_memory(lifetimes));
  }
}

// A chain needs room for two tensors, however long it is.
void test_chain() {
  std::vector<Lifetime> lifetimes;
  for (std::size_t step = 0; step < 50; ++step) {
    lifetimes.push_back({1024, step, step + 1});
  }
  CHECK(pyquant::plan_memory(lifetimes) == 2048);
  check_plan(lifetimes, 2048);
}

void test_nothing() {
  std::vector<Lifetime> none;
  CHECK(pyquant::plan_memory(none) == 0);
}

}  // namespace

int main() {
  test_random_lifetimes();
  test_chain();
  test_nothing();
  std::puts("memory planner: passed");
}
