#include <algorithm>
#include <cmath>

#include "observers/range.h"

namespace pyquant {
namespace {

constexpr std::size_t kStride = 8;
constexpr double kSmoothing = 1e-4;

double log_term(double value) { return value > 0.0 ? value * std::log(value) : 0.0; }

// How many bins hold |x|, and sums over the first of them.
struct Magnitudes {
  std::size_t bins = 0;
  std::vector<double> counts;
  std::vector<double> count, filled, log_count;  // of the bins before: counts, bins, c * log(c)

  explicit Magnitudes(const HistogramState& histogram) : counts(kHistogramSide) {
    for (std::size_t m = 0; m < kHistogramSide; ++m) {
      counts[m] = static_cast<double>(histogram.counts[kHistogramSide + m] +
                                      histogram.counts[kHistogramSide - 1 - m]);
      bins = counts[m] > 0.0 ? m + 1 : bins;
    }
    counts[0] = counts[1];
    for (std::vector<double>* sums : {&count, &filled, &log_count}) {
      sums->resize(kHistogramSide + 1);
    }
    for (std::size_t m = 0; m < kHistogramSide; ++m) {
      count[m + 1] = count[m] + counts[m];
      filled[m + 1] = filled[m] + (counts[m] > 0.0 ? 1.0 : 0.0);
      log_count[m + 1] = log_count[m] + log_term(counts[m]);
    }
  }
};

// Of P, the first `size` bins with all further values in the last one, from Q, the same bins
// without those values, averaged over the bins of each level that are not empty. In nats, but for a
// constant (the sum of all counts).
double divergence(const Magnitudes& x, std::size_t size, std::size_t levels) {
  const double outliers = x.count[kHistogramSide] - x.count[size];
  const double last = x.counts[size - 1];
  if (x.count[size] == 0.0) {
    return std::numeric_limits<double>::infinity();
  }
  const double p_log_p = x.log_count[size - 1] + log_term(last + outliers);
  double p_log_q = 0.0;
  double log_average = 0.0;
  for (std::size_t level = 0, first = 0; level < levels; ++level) {
    const std::size_t end = ((level + 1) * size + levels - 1) / levels;
    const double sum = x.count[end] - x.count[first];
    if (sum > 0.0) {
      log_average = std::log(sum / (x.filled[end] - x.filled[first]));
      p_log_q += sum * log_average;
    }
    first = end;
  }
  // Further values are in the last bin: with its level, or where Q has nothing.
  p_log_q += outliers * (last > 0.0 ? log_average : std::log(kSmoothing * x.count[size]));
  const double total = x.count[kHistogramSide];
  return p_log_p - p_log_q + total * std::log(x.count[size] / total);
}

}  // namespace

ValueRange entropy_range(const HistogramState& histogram, const Grid& grid) {
  const Extremes& seen = histogram.extremes;
  const bool one_sided = seen.min >= 0.0F || seen.max <= 0.0F;
  const auto all = static_cast<std::size_t>(grid.max - grid.min) + 1;
  const std::size_t levels = one_sided && !grid.symmetric ? all : (all + 1) / 2;
  const Magnitudes magnitudes(histogram);
  double best = std::numeric_limits<double>::infinity();
  std::size_t size = magnitudes.bins;
  for (std::size_t tried = levels; tried <= magnitudes.bins; tried += kStride) {
    const double found = divergence(magnitudes, tried, levels);
    if (found < best) {
      best = found;
      size = tried;
    }
  }
  const auto threshold = static_cast<float>(static_cast<double>(size) * histogram.width());
  return {std::max(-threshold, std::min(seen.min, 0.0F)),
          std::min(threshold, std::max(seen.max, 0.0F))};
}

}  // namespace pyquant
