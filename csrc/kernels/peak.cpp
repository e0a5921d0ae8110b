#include "pyquant/peak.h"

#include <algorithm>
#include <chrono>

#include "kernels/kernel_table.h"

namespace pyquant {

std::string isa_in_use() { return kernel_table().isa; }

std::optional<double> measure_peak(double seconds) {
  using Clock = std::chrono::steady_clock;
  using Seconds = std::chrono::duration<double>;
  // Some 10 to 150 microseconds: short enough to fit between two interruptions.
  constexpr std::size_t kLoops = 4096;
  const auto multiply_adds = kernel_table().multiply_adds;
  if (multiply_adds == nullptr) {
    return std::nullopt;
  }
  double best = 0;
  const Clock::time_point start = Clock::now();
  for (Clock::time_point begin = start; Seconds(begin - start).count() < seconds;) {
    const auto count = static_cast<double>(multiply_adds(kLoops));
    const Clock::time_point end = Clock::now();
    best = std::max(best, count / Seconds(end - begin).count());
    begin = end;
  }
  return best;
}

}  // namespace pyquant
