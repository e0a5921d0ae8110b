#include "kernels/avx2/kernels.h"
#include "kernels/avx2/rounding.h"
#include "kernels/scalar/kernels.h"

namespace pyquant::avx2 {
namespace {

constexpr std::size_t kStep = 32;

struct Scaler {
  __m256i zero_point;
  __m256 multiplier;

  explicit Scaler(const AddOperand& operand)
      : zero_point(_mm256_set1_epi32(operand.zero_point)),
        multiplier(_mm256_set1_ps(operand.multiplier)) {}

  __m256 operator()(const std::uint8_t* x) const {
    return _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_sub_epi32(widen(x), zero_point)), multiplier);
  }
};

}  // namespace

void add(const std::uint8_t* a, AddOperand a_operand, const std::uint8_t* b, AddOperand b_operand,
         std::size_t count, OutputRange range, std::uint8_t* y) {
  const Rounder rounder(range);
  const Scaler scale_a(a_operand);
  const Scaler scale_b(b_operand);
  std::size_t i = 0;
  for (; i + kStep <= count; i += kStep) {
    __m256i rounded[4];
    for (std::size_t part = 0; part < 4; ++part) {
      rounded[part] =
          rounder.round(_mm256_add_ps(scale_a(a + i + 8 * part), scale_b(b + i + 8 * part)));
    }
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(y + i),
                        narrow(rounded[0], rounded[1], rounded[2], rounded[3]));
  }
  if (i != count) {
    scalar::add(a + i, a_operand, b + i, b_operand, count - i, range, y + i);
  }
}

void add_float(const float* a, float a_multiplier, const std::uint8_t* b, AddOperand b_operand,
               std::size_t count, OutputRange range, std::uint8_t* y) {
  const Rounder rounder(range);
  const Scaler scale_b(b_operand);
  const __m256 factor = _mm256_set1_ps(a_multiplier);
  std::size_t i = 0;
  for (; i + 8 <= count; i += 8) {
    const __m256 value = _mm256_mul_ps(_mm256_loadu_ps(a + i), factor);
    store8(y + i, narrow(rounder.round(_mm256_add_ps(value, scale_b(b + i)))));
  }
  if (i != count) {
    scalar::add_float(a + i, a_multiplier, b + i, b_operand, count - i, range, y + i);
  }
}

}  // namespace pyquant::avx2
