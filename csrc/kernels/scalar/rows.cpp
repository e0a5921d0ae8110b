#include "kernels/scalar/kernels.h"

namespace pyquant::scalar {

void max_rows(const std::uint8_t* const* rows, std::size_t row_count, std::size_t count,
              std::size_t pixels, std::size_t pixel_stride, std::uint8_t* y) {
  for (std::size_t pixel = 0; pixel < pixels; ++pixel, y += count) {
    for (std::size_t i = 0; i < count; ++i) {
      const std::size_t position = pixel * pixel_stride + i;
      std::uint8_t largest = rows[0][position];
      for (std::size_t row = 1; row < row_count; ++row) {
        largest = rows[row][position] > largest ? rows[row][position] : largest;
      }
      y[i] = largest;
    }
  }
}

void accumulate(const std::uint8_t* x, std::size_t pixels, std::size_t pixel_stride,
                std::size_t count, std::int32_t* sums) {
  for (std::size_t pixel = 0; pixel < pixels; ++pixel, x += pixel_stride) {
    for (std::size_t i = 0; i < count; ++i) {
      sums[i] += x[i];
    }
  }
}

void lookup(const std::uint8_t* x, const std::uint8_t* values, std::size_t count, std::uint8_t* y) {
  for (std::size_t i = 0; i < count; ++i) {
    y[i] = values[x[i]];
  }
}

}  // namespace pyquant::scalar
