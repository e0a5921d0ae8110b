#include <immintrin.h>

#include "kernels/avx2/kernels.h"
#include "kernels/scalar/kernels.h"

namespace pyquant::avx2 {
namespace {

__m128i load16(const std::uint8_t* x) {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(x));
}
__m128i load8(const std::uint8_t* x) {
  return _mm_loadl_epi64(reinterpret_cast<const __m128i*>(x));
}
void store16(std::uint8_t* y, __m128i bytes) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(y), bytes);
}
void store8(std::uint8_t* y, __m128i bytes) {
  _mm_storel_epi64(reinterpret_cast<__m128i*>(y), bytes);
}

struct Copy32 {
  static constexpr std::size_t kBytes = 32;
  static void step(const std::uint8_t* x, std::uint8_t* y) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(y),
                        _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x)));
  }
};
struct Copy16 {
  static constexpr std::size_t kBytes = 16;
  static void step(const std::uint8_t* x, std::uint8_t* y) { store16(y, load16(x)); }
};
struct Copy8 {
  static constexpr std::size_t kBytes = 8;
  static void step(const std::uint8_t* x, std::uint8_t* y) { store8(y, load8(x)); }
};
struct Copy4 {
  static constexpr std::size_t kBytes = 4;
  static void step(const std::uint8_t* x, std::uint8_t* y) { __builtin_memcpy(y, x, 4); }
};

// Rows of at least Copy::kBytes bytes: the last step of a row may overlap the one before it.
template <typename Copy>
void copy_in_steps(const std::uint8_t* x, std::ptrdiff_t x_stride, std::uint8_t* y,
                   std::ptrdiff_t y_stride, std::size_t rows, std::size_t bytes) {
  for (std::size_t row = 0; row < rows; ++row, x += x_stride, y += y_stride) {
    for (std::size_t i = 0; i + Copy::kBytes < bytes; i += Copy::kBytes) {
      Copy::step(x + i, y + i);
    }
    Copy::step(x + bytes - Copy::kBytes, y + bytes - Copy::kBytes);
  }
}

struct Zip16 {
  static constexpr std::size_t kBytes = 16;
  static void step(const std::uint8_t* a, const std::uint8_t* b, std::uint8_t* y) {
    const __m128i left = load16(a);
    const __m128i right = load16(b);
    store16(y, _mm_unpacklo_epi8(left, right));
    store16(y + 16, _mm_unpackhi_epi8(left, right));
  }
};
struct Zip8 {
  static constexpr std::size_t kBytes = 8;
  static void step(const std::uint8_t* a, const std::uint8_t* b, std::uint8_t* y) {
    store16(y, _mm_unpacklo_epi8(load8(a), load8(b)));
  }
};

template <typename Zip>
void zip_in_steps(const std::uint8_t* a, std::ptrdiff_t a_stride, const std::uint8_t* b,
                  std::ptrdiff_t b_stride, std::uint8_t* y, std::ptrdiff_t y_stride,
                  std::size_t rows, std::size_t bytes) {
  for (std::size_t row = 0; row < rows; ++row, a += a_stride, b += b_stride, y += y_stride) {
    for (std::size_t i = 0; i + Zip::kBytes < bytes; i += Zip::kBytes) {
      Zip::step(a + i, b + i, y + 2 * i);
    }
    const std::size_t last = bytes - Zip::kBytes;
    Zip::step(a + last, b + last, y + 2 * last);
  }
}

// Eight rows of eight bytes.
void transpose8(const std::uint8_t* x, std::ptrdiff_t x_stride, std::uint8_t* y,
                std::ptrdiff_t y_stride) {
  __m128i pairs[4];  // of rows, by byte
  for (std::ptrdiff_t i = 0; i < 4; ++i) {
    pairs[i] = _mm_unpacklo_epi8(load8(x + 2 * i * x_stride), load8(x + (2 * i + 1) * x_stride));
  }
  const __m128i low[] = {_mm_unpacklo_epi16(pairs[0], pairs[1]),
                         _mm_unpacklo_epi16(pairs[2], pairs[3])};
  const __m128i high[] = {_mm_unpackhi_epi16(pairs[0], pairs[1]),
                          _mm_unpackhi_epi16(pairs[2], pairs[3])};
  const __m128i columns[] = {_mm_unpacklo_epi32(low[0], low[1]), _mm_unpackhi_epi32(low[0], low[1]),
                             _mm_unpacklo_epi32(high[0], high[1]),
                             _mm_unpackhi_epi32(high[0], high[1])};
  for (std::ptrdiff_t i = 0; i < 4; ++i) {
    store8(y + 2 * i * y_stride, columns[i]);
    store8(y + (2 * i + 1) * y_stride, _mm_unpackhi_epi64(columns[i], columns[i]));
  }
}

}  // namespace

void copy_rows(const std::uint8_t* x, std::ptrdiff_t x_stride, std::uint8_t* y,
               std::ptrdiff_t y_stride, std::size_t rows, std::size_t bytes) {
  const auto copy = bytes >= 32   ? copy_in_steps<Copy32>
                    : bytes >= 16 ? copy_in_steps<Copy16>
                    : bytes >= 8  ? copy_in_steps<Copy8>
                    : bytes >= 4  ? copy_in_steps<Copy4>
                                  : scalar::copy_rows;
  copy(x, x_stride, y, y_stride, rows, bytes);
}

void zip_rows(const std::uint8_t* a, std::ptrdiff_t a_stride, const std::uint8_t* b,
              std::ptrdiff_t b_stride, std::uint8_t* y, std::ptrdiff_t y_stride, std::size_t rows,
              std::size_t bytes) {
  const auto zip = bytes >= 16  ? zip_in_steps<Zip16>
                   : bytes >= 8 ? zip_in_steps<Zip8>
                                : scalar::zip_rows;
  zip(a, a_stride, b, b_stride, y, y_stride, rows, bytes);
}

void transpose(const std::uint8_t* x, std::ptrdiff_t x_stride, std::size_t rows,
               std::size_t columns, std::uint8_t* y, std::ptrdiff_t y_stride) {
  const auto whole_rows = static_cast<std::ptrdiff_t>(rows / 8 * 8);
  const auto whole_columns = static_cast<std::ptrdiff_t>(columns / 8 * 8);
  for (std::ptrdiff_t column = 0; column < whole_columns; column += 8) {
    for (std::ptrdiff_t row = 0; row < whole_rows; row += 8) {
      transpose8(x + row * x_stride + column, x_stride, y + column * y_stride + row, y_stride);
    }
  }
  scalar::transpose(x + whole_rows * x_stride, x_stride, rows % 8,
                    static_cast<std::size_t>(whole_columns), y + whole_rows, y_stride);
  scalar::transpose(x + whole_columns, x_stride, rows, columns % 8, y + whole_columns * y_stride,
                    y_stride);
}

}  // namespace pyquant::avx2
