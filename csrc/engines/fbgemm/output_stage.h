// What happens to the accumulators of a Conv2d or Linear: offset, multiplier, rounding, clamp.
#pragma once

#include <cstdint>
#include <vector>

#include "pyquant/operator.h"

namespace pyquant::fbgemm_engine {

class OutputStage {
 public:
  explicit OutputStage(const Operator& op);

  // bias - zero_point * sum(weights) per channel. A kernel that multiplies the raw uint8 inputs
  // adds these. Modulo 2^32: the sum with the raw accumulator fits int32 again.
  const std::int32_t* offsets() const { return offsets_.data(); }
  const float* multipliers() const { return multipliers_.data(); }

  DType dtype() const { return dtype_; }
  std::int32_t channels() const { return static_cast<std::int32_t>(offsets_.size()); }
  std::int32_t zero_point() const { return zero_point_; }
  std::int32_t low() const { return low_; }
  std::int32_t high() const { return high_; }

  // See scaled_accumulators_fit_int32.
  bool scaled_fits_int32() const { return scaled_fits_int32_; }

  // FBGEMM's only clamps are [0, 255] and [zero_point, 255] ("ReLU"); other bounds need clamp().
  bool is_relu() const { return low_ == zero_point_; }
  bool needs_clamp() const { return high_ != 255 || (low_ != 0 && !is_relu()); }

  // Clamps uint8 outputs to [low(), high()].
  void clamp(std::uint8_t* outputs, std::int64_t count) const;

  // Writes `rows` rows of channels() outputs from raw accumulators: first + second + offset.
  // `second` may be null. Needs AVX2.
  void write(const std::int32_t* first, const std::int32_t* second, std::int64_t rows,
             void* output) const;

 private:
  DType dtype_;
  std::int32_t zero_point_;
  std::int32_t low_ = 0, high_ = 255;
  std::vector<std::int32_t> offsets_;
  std::vector<float> multipliers_;
  bool scaled_fits_int32_;
};

}  // namespace pyquant::fbgemm_engine
