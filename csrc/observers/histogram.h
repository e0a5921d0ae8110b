// A histogram of all values ever seen, in constant memory, that merges exactly.
//
// All bins have the width 2^exponent and are anchored at zero. Bin kHistogramSide + m counts the
// values v >= 0 with trunc(v / width) == m, bin kHistogramSide - 1 - m those v < 0 with
// trunc(-v / width) == m. A value beyond the bins makes the histogram grow: the exponent rises and
// pairs of bins become one. Because floor(floor(x / w) / 2) == floor(x / (2 * w)), the counts
// depend on the values alone: not on their order, nor on how they were spread over histograms that
// were merged later.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "observers/min_max.h"

namespace pyquant {

inline constexpr std::int32_t kHistogramSideBits = 11;
inline constexpr std::size_t kHistogramSide = std::size_t{1} << kHistogramSideBits;
inline constexpr std::size_t kHistogramBins = 2 * kHistogramSide;
// The exponent of an empty histogram. Bins far finer than the smallest scale (2^-23) help nobody.
inline constexpr std::int32_t kSmallestExponent = -40;

struct HistogramState {
  std::span<std::int64_t, kHistogramBins> counts;
  std::int32_t& exponent;
  Extremes& extremes;  // exact

  // The width of a bin.
  double width() const;

  // Raises the exponent to at least this one.
  void grow(std::int32_t to);

  // Adds what another histogram has seen.
  void merge(const HistogramState& other);
};

// Counts values, quickly: in chunks that stay in cache; zeros, of which a ReLU makes many, by
// themselves; the others in two tables, so that an increment need not wait for the one before it
// where neighbours are equal (more tables no longer fit the first-level cache). One thread at a
// time.
class HistogramCounter {
 public:
  // exponent: that of the histogram to be merged into, which spares growing up to it.
  HistogramCounter(Interval interval, std::int32_t exponent);

  // Throws NotFiniteError if a value is NaN or infinite; the counter is of no use then.
  void count(std::span<const float> values);

  // What was counted.
  HistogramState state();

 private:
  void count_chunk(std::span<const float> values);
  void flush();

  Interval interval_;
  std::int32_t exponent_;
  Extremes extremes_;
  std::size_t unflushed_ = 0;
  std::vector<std::int64_t> counts_;
  std::vector<std::uint32_t> tables_;  // [kHistogramBins][tables]
  std::vector<std::uint16_t> bins_;    // of one chunk
};

}  // namespace pyquant
