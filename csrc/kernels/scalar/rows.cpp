#include "kernels/scalar/kernels.h"

namespace pyquant::scalar {

void max_rows(const std::uint8_t* const* rows, std::size_t row_count, std::size_t count,
              std::uint8_t* y) {
  for (std::size_t i = 0; i < count; ++i) {
    std::uint8_t largest = rows[0][i];
    for (std::size_t row = 1; row < row_count; ++row) {
      largest = rows[row][i] > largest ? rows[row][i] : largest;
    }
    y[i] = largest;
  }
}

void accumulate(const std::uint8_t* row, std::size_t count, std::int32_t* sums) {
  for (std::size_t i = 0; i < count; ++i) {
    sums[i] += row[i];
  }
}

void lookup(const std::uint8_t* x, const std::uint8_t* values, std::size_t count, std::uint8_t* y) {
  for (std::size_t i = 0; i < count; ++i) {
    y[i] = values[x[i]];
  }
}

}  // namespace pyquant::scalar
