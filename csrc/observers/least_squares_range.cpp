#include <algorithm>
#include <array>
#include <cmath>

#include "observers/range.h"

namespace pyquant {
namespace {

// Where the density of values changes: between bins.
struct Edges {
  std::vector<double> position, drop;  // drop: count of the bin below minus that of the bin above
};

Edges edges_of(const HistogramState& histogram) {
  Edges edges;
  std::int64_t below = 0;
  for (std::size_t bin = 0; bin <= kHistogramBins; ++bin) {
    const std::int64_t above = bin < kHistogramBins ? histogram.counts[bin] : 0;
    if (above != below) {
      edges.position.push_back((static_cast<double>(bin) - kHistogramSide) * histogram.width());
      edges.drop.push_back(static_cast<double>(below - above));
    }
    below = above;
  }
  return edges;
}

// The expected squared error, but for a constant factor. With u = x / scale and k the integer that
// u is rounded and clamped to, the error from 0 to u integrates to scale^3 * (k / 12 + (u - k)^3 /
// 3): k cells of width 1, and a part of one or a saturated tail, in both directions. Summed by
// parts over evenly filled bins, every edge counts with the change of density there.
double squared_error(const Edges& edges, ValueRange range, const Grid& grid) {
  constexpr std::size_t kLanes = 8;              // sums that the compiler can keep in vectors
  constexpr double kRound = 6755399441055744.0;  // 1.5 * 2^52: adding and subtracting it rounds
  const GridParams params = choose_qparams(range.low, range.high, grid);
  const double scale = params.scale;
  const double inverse = 1.0 / scale;
  const double lowest = grid.min - params.zero_point;
  const double highest = grid.max - params.zero_point;
  const auto error = [&](std::size_t i) {
    const double steps = edges.position[i] * inverse;
    const double clamped = std::min(std::max(steps, lowest), highest);
    const double rounded = (clamped + kRound) - kRound;
    const double rest = steps - rounded;
    return edges.drop[i] * (rounded * (1.0 / 12.0) + rest * rest * rest * (1.0 / 3.0));
  };
  std::array<double, kLanes> sums{};
  std::size_t i = 0;
  for (; i + kLanes <= edges.position.size(); i += kLanes) {
    for (std::size_t lane = 0; lane < kLanes; ++lane) {
      sums[lane] += error(i + lane);
    }
  }
  double sum = 0.0;
  for (; i < edges.position.size(); ++i) {
    sum += error(i);
  }
  for (const double lane : sums) {
    sum += lane;
  }
  return sum * scale * scale * scale;
}

class Search {
 public:
  Search(const HistogramState& histogram, const Grid& grid)
      : edges_(edges_of(histogram)), grid_(grid) {
    const Extremes& seen = histogram.extremes;
    const float largest = std::max(-seen.min, seen.max);
    widest_ = grid.symmetric ? ValueRange{-largest, largest}
                             : ValueRange{std::min(seen.min, 0.0F), std::max(seen.max, 0.0F)};
    for (int half_octaves = 0; half_octaves <= kHalfOctaves; ++half_octaves) {
      const float threshold = largest * std::exp2(-0.5F * static_cast<float>(half_octaves));
      take_if_better({-threshold, threshold});
    }
    for (float step = 0.5F; step >= kLastStep;) {
      if (!move(std::exp2(-step)) && !move(std::exp2(step))) {
        step /= 2.0F;
      }
    }
  }

  ValueRange best() const { return best_; }

 private:
  static constexpr int kHalfOctaves = 16;  // below them the bins are as wide as the steps
  static constexpr float kLastStep = 1.0F / 64.0F;

  bool take_if_better(ValueRange range) {
    range = {std::max(range.low, widest_.low), std::min(range.high, widest_.high)};
    if (range.low == best_.low && range.high == best_.high) {
      return false;
    }
    const double error = squared_error(edges_, range, grid_);
    if (!(error < best_error_)) {
      return false;
    }
    best_ = range;
    best_error_ = error;
    return true;
  }

  // Multiplies either end, or both if the grid is symmetric, if that is better.
  bool move(float factor) {
    const ValueRange from = best_;
    if (grid_.symmetric) {
      return take_if_better({from.low * factor, from.high * factor});
    }
    const bool low = take_if_better({from.low * factor, best_.high});
    return take_if_better({best_.low, from.high * factor}) || low;
  }

  Edges edges_;
  Grid grid_;
  ValueRange widest_{};
  ValueRange best_{};
  double best_error_ = std::numeric_limits<double>::infinity();
};

}  // namespace

ValueRange least_squares_range(const HistogramState& histogram, const Grid& grid) {
  return Search(histogram, grid).best();
}

}  // namespace pyquant
