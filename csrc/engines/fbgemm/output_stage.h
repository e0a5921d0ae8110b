// What happens to the accumulators of a Conv2d or Linear: offset, multiplier, rounding, clamp.
#pragma once

#include <cstdint>

#include "pyquant/operator.h"
#include "quant/accumulator.h"

namespace pyquant::fbgemm_engine {

class OutputStage {
 public:
  explicit OutputStage(const Operator& op) : dtype_(op.output.dtype), constants_(op) {}

  // See AccumulatorConstants.
  const std::int32_t* offsets() const { return constants_.offsets.data(); }
  const float* multipliers() const { return constants_.multipliers.data(); }
  bool scaled_fits_int32() const { return constants_.scaled_fits_int32; }
  std::int32_t zero_point() const { return constants_.zero_point; }
  std::int32_t low() const { return constants_.low; }
  std::int32_t high() const { return constants_.high; }

  DType dtype() const { return dtype_; }
  std::int32_t channels() const { return static_cast<std::int32_t>(constants_.offsets.size()); }

  // FBGEMM's only clamps are [0, 255] and [zero_point, 255] ("ReLU"); other bounds need clamp().
  bool is_relu() const { return low() == zero_point(); }
  bool needs_clamp() const { return high() != 255 || (low() != 0 && !is_relu()); }

  // Clamps uint8 outputs to [low(), high()].
  void clamp(std::uint8_t* outputs, std::int64_t count) const;

  // Writes `rows` rows of channels() outputs from raw accumulators: first + second + offset.
  // `second` may be null. Needs AVX2.
  void write(const std::int32_t* first, const std::int32_t* second, std::int64_t rows,
             void* output) const;

 private:
  DType dtype_;
  AccumulatorConstants constants_;
};

}  // namespace pyquant::fbgemm_engine
