#include <algorithm>
#include <cmath>

#include "observers/range.h"

namespace pyquant {
namespace {

// How many bins, taken in order, hold at least `wanted` values.
template <typename Count>
std::size_t bins_holding(double wanted, std::size_t bins, Count count) {
  std::int64_t sum = 0;
  for (std::size_t bin = 0; bin < bins; ++bin) {
    sum += count(bin);
    if (static_cast<double>(sum) >= wanted) {
      return bin + 1;
    }
  }
  return bins;
}

}  // namespace

ValueRange percentile_range(const HistogramState& histogram, const Grid& grid, double percentile) {
  const Extremes& seen = histogram.extremes;
  const auto& counts = histogram.counts;
  std::int64_t total = 0;
  for (const std::int64_t count : counts) {
    total += count;
  }
  const auto edge = [&](std::size_t bin) {
    return static_cast<float>((static_cast<double>(bin) - kHistogramSide) * histogram.width());
  };
  std::size_t low = 0;
  std::size_t high = 0;
  if (grid.symmetric) {
    const double wanted = static_cast<double>(total) * (percentile / 100.0);
    const std::size_t distance = bins_holding(wanted, kHistogramSide, [&](std::size_t m) {
      return counts[kHistogramSide + m] + counts[kHistogramSide - 1 - m];
    });
    low = kHistogramSide - distance;
    high = kHistogramSide + distance;
  } else {
    const double wanted = static_cast<double>(total) * (0.5 + percentile / 200.0);
    high = bins_holding(wanted, kHistogramBins, [&](std::size_t bin) { return counts[bin]; });
    low = kHistogramBins - bins_holding(wanted, kHistogramBins, [&](std::size_t bin) {
            return counts[kHistogramBins - 1 - bin];
          });
  }
  return {std::clamp(edge(low), std::min(seen.min, 0.0F), 0.0F),
          std::clamp(edge(high), 0.0F, std::max(seen.max, 0.0F))};
}

}  // namespace pyquant
