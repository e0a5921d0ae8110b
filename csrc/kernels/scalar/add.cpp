#include "kernels/scalar/kernels.h"
#include "kernels/scalar/rounding.h"

namespace pyquant::scalar {
namespace {

inline float scaled(std::uint8_t q, const AddOperand& operand) {
  return static_cast<float>(q - operand.zero_point) * operand.multiplier;
}

}  // namespace

void add(const std::uint8_t* a, AddOperand a_operand, const std::uint8_t* b, AddOperand b_operand,
         std::size_t count, OutputRange range, std::uint8_t* y) {
  for (std::size_t i = 0; i < count; ++i) {
    y[i] = to_uint8(scaled(a[i], a_operand) + scaled(b[i], b_operand), range);
  }
}

void add_float(const float* a, float a_multiplier, const std::uint8_t* b, AddOperand b_operand,
               std::size_t count, OutputRange range, std::uint8_t* y) {
  for (std::size_t i = 0; i < count; ++i) {
    y[i] = to_uint8(a[i] * a_multiplier + scaled(b[i], b_operand), range);
  }
}

}  // namespace pyquant::scalar
