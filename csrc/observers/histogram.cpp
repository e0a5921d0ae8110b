#include "observers/histogram.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "kernels/kernel_table.h"

namespace pyquant {
namespace {

constexpr std::size_t kChunk = 4096;  // values; with their bin numbers 24 KiB
constexpr std::size_t kTables = 2;
constexpr std::size_t kMostUnflushed = std::numeric_limits<std::uint32_t>::max();

// The smallest exponent at which both fit.
std::int32_t exponent_for(const Extremes& extremes) {
  const float largest = std::max(std::abs(extremes.min), std::abs(extremes.max));
  if (largest == 0.0F) {
    return kSmallestExponent;
  }
  int exponent = 0;
  std::frexp(largest, &exponent);  // largest < 2^exponent
  return std::max(exponent - kHistogramSideBits, kSmallestExponent);
}

}  // namespace

double HistogramState::width() const { return std::ldexp(1.0, exponent); }

void HistogramState::grow(std::int32_t to) {
  if (to <= exponent) {
    return;
  }
  // From zero outwards, so that what has moved is not moved again.
  const std::int32_t shift = std::min(to - exponent, kHistogramSideBits);
  for (std::size_t from = 1; from < kHistogramSide; ++from) {
    const std::size_t distance = from >> shift;
    for (const auto& [source, target] :
         {std::pair{kHistogramSide + from, kHistogramSide + distance},
          std::pair{kHistogramSide - 1 - from, kHistogramSide - 1 - distance}}) {
      const std::int64_t moved = counts[source];
      counts[source] = 0;
      counts[target] += moved;
    }
  }
  exponent = to;
}

void HistogramState::merge(const HistogramState& other) {
  grow(other.exponent);
  if (other.exponent == exponent) {
    for (std::size_t bin = 0; bin < kHistogramBins; ++bin) {
      counts[bin] += other.counts[bin];
    }
  } else {
    std::vector<std::int64_t> copy(other.counts.begin(), other.counts.end());
    std::int32_t grown_exponent = other.exponent;
    Extremes grown_extremes = other.extremes;
    HistogramState grown{std::span<std::int64_t, kHistogramBins>(copy), grown_exponent,
                         grown_extremes};
    grown.grow(exponent);
    merge(grown);
  }
  extremes.add(other.extremes);
}

HistogramCounter::HistogramCounter(Interval interval, std::int32_t exponent)
    : interval_(interval),
      exponent_(exponent),
      counts_(kHistogramBins),
      tables_(kHistogramBins * kTables),
      bins_(kChunk + kBinSlack) {}

void HistogramCounter::count(std::span<const float> values) {
  while (!values.empty()) {
    const std::size_t size = std::min(values.size(), kChunk);
    count_chunk(values.first(size));
    values = values.subspan(size);
  }
}

void HistogramCounter::count_chunk(std::span<const float> values) {
  const Extremes chunk = min_max(values, interval_);
  extremes_.add(chunk);
  const std::int32_t needed = exponent_for(chunk);
  if (needed > exponent_ || unflushed_ + values.size() > kMostUnflushed) {
    flush();
    state().grow(needed);
  }
  unflushed_ += values.size();
  const BinLayout layout = {chunk.min, chunk.max, std::ldexp(1.0F, -exponent_),
                            static_cast<std::int32_t>(kHistogramSide)};
  const std::size_t found =
      kernel_table().histogram_bins(values.data(), values.size(), layout, bins_.data());
  tables_[kHistogramSide * kTables] += static_cast<std::uint32_t>(values.size() - found);
  std::uint32_t* tables = tables_.data();
  const std::uint16_t* bins = bins_.data();
  std::size_t i = 0;
  for (; i + kTables <= found; i += kTables) {
    for (std::size_t table = 0; table < kTables; ++table) {
      ++tables[bins[i + table] * kTables + table];
    }
  }
  for (; i < found; ++i) {
    ++tables[bins[i] * kTables];
  }
}

void HistogramCounter::flush() {
  for (std::size_t bin = 0; bin < kHistogramBins; ++bin) {
    for (std::size_t table = 0; table < kTables; ++table) {
      counts_[bin] += tables_[bin * kTables + table];
    }
  }
  std::ranges::fill(tables_, 0U);
  unflushed_ = 0;
}

HistogramState HistogramCounter::state() {
  flush();
  return {std::span<std::int64_t, kHistogramBins>(counts_), exponent_, extremes_};
}

}  // namespace pyquant
