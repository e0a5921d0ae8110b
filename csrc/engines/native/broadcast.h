// How an operator with two inputs, of which dimensions of 1 are repeated, is cut into rows.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <vector>

#include "engines/engine.h"
#include "runtime/thread_pool.h"

namespace pyquant::native {

// Two uint8 inputs of one rank, bound to shapes.
class Broadcast {
 public:
  Broadcast(const Shape& a, const Shape& b, const Shape& output);

  // Which input is the repeated one of the rows below.
  std::size_t repeated() const { return repeated_; }

  // Calls rows(x, r, rows, count, y) until every output is there, on all threads: x and y are
  // `rows` contiguous rows of `count` elements, r is one row, which each of them meets.
  template <typename Rows>
  void run(const RunArgs& args, Rows rows) const {
    args.pool->run([&](int thread) {
      const Range slice = slice_of(elements_, thread, args.pool->size());
      for (std::int64_t at = slice.begin; at < slice.end;) {
        at += run_from(args, at, slice.end, rows);
      }
    });
  }

 private:
  // A dimension of the output and how far each input moves per step: 0 where it is repeated.
  struct Axis {
    std::int64_t size;
    std::array<std::int64_t, 2> strides;
  };

  static std::vector<Axis> merged_axes(const Shape& a, const Shape& b, const Shape& output);

  // Computes outputs from element `begin` on, as many as one call can within `end`; returns how
  // many.
  template <typename Rows>
  std::int64_t run_from(const RunArgs& args, std::int64_t begin, std::int64_t end,
                        Rows rows) const {
    const std::int64_t row_size = axes_[0].size;
    const std::int64_t column = begin % row_size;
    const std::int64_t count = std::min(row_size - column, end - begin);
    std::int64_t row_count = 1;
    if (both_walk_ && axes_.size() > 1 && count == row_size) {
      row_count =
          std::min(axes_[1].size - begin / row_size % axes_[1].size, (end - begin) / row_size);
    }
    std::array<const std::uint8_t*, 2> sources{};
    for (std::size_t input = 0; input < 2; ++input) {
      sources[input] = static_cast<const std::uint8_t*>(args.inputs[input]) +
                       offset_of(input, begin / row_size) + column * axes_[0].strides[input];
    }
    const std::uint8_t* x = sources[1 - repeated_];
    const std::uint8_t* r = sources[repeated_];
    auto* y = static_cast<std::uint8_t*>(args.output) + begin;
    if (both_walk_) {
      rows(x, r, static_cast<std::size_t>(row_count), static_cast<std::size_t>(count), y);
    } else {
      repeat_value(x, *r, static_cast<std::size_t>(count), y, rows);
    }
    return row_count * count;
  }

  // One value against `count` ones: as a repeated row of that value.
  template <typename Rows>
  static void repeat_value(const std::uint8_t* x, std::uint8_t value, std::size_t count,
                           std::uint8_t* y, Rows rows) {
    constexpr std::size_t kRow = 256;
    std::array<std::uint8_t, kRow> row;
    std::memset(row.data(), value, std::min(count, kRow));
    const std::size_t whole = count / kRow * kRow;
    rows(x, row.data(), whole / kRow, kRow, y);
    rows(x + whole, row.data(), 1, count - whole, y + whole);
  }

  // Where the row of that number begins in an input.
  std::int64_t offset_of(std::size_t input, std::int64_t row) const;

  std::vector<Axis> axes_;  // innermost first, at least one
  std::int64_t elements_;
  bool both_walk_ = false;  // whether both inputs move along the innermost axis
  std::size_t repeated_ = 1;
};

}  // namespace pyquant::native
