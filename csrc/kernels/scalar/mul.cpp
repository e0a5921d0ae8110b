#include "kernels/scalar/kernels.h"
#include "kernels/scalar/rounding.h"

namespace pyquant::scalar {

void mul(MulOperand x, MulOperand r, float multiplier, std::size_t rows, std::size_t count,
         OutputRange range, std::uint8_t* y) {
  for (std::size_t row = 0; row < rows; ++row) {
    for (std::size_t i = 0; i < count; ++i) {
      const std::int32_t product =
          (x.data[row * count + i] - x.zero_point) * (r.data[i] - r.zero_point);
      y[row * count + i] = to_uint8(static_cast<float>(product) * multiplier, range);
    }
  }
}

}  // namespace pyquant::scalar
