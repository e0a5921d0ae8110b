#include "kernels/scalar/kernels.h"

namespace pyquant::scalar {

void copy_rows(const std::uint8_t* x, std::ptrdiff_t x_stride, std::uint8_t* y,
               std::ptrdiff_t y_stride, std::size_t rows, std::size_t bytes) {
  for (std::size_t row = 0; row < rows; ++row, x += x_stride, y += y_stride) {
    __builtin_memcpy(y, x, bytes);
  }
}

void zip_rows(const std::uint8_t* a, std::ptrdiff_t a_stride, const std::uint8_t* b,
              std::ptrdiff_t b_stride, std::uint8_t* y, std::ptrdiff_t y_stride, std::size_t rows,
              std::size_t bytes) {
  for (std::size_t row = 0; row < rows; ++row, a += a_stride, b += b_stride, y += y_stride) {
    for (std::size_t i = 0; i < bytes; ++i) {
      y[2 * i] = a[i];
      y[2 * i + 1] = b[i];
    }
  }
}

void transpose(const std::uint8_t* x, std::ptrdiff_t x_stride, std::size_t rows,
               std::size_t columns, std::uint8_t* y, std::ptrdiff_t y_stride) {
  for (std::size_t column = 0; column < columns; ++column, ++x, y += y_stride) {
    const std::uint8_t* from = x;
    for (std::size_t row = 0; row < rows; ++row, from += x_stride) {
      y[row] = *from;
    }
  }
}

}  // namespace pyquant::scalar
