// What happens to the accumulators of a Conv2d or Linear: offset, multiplier, rounding, clamp.
#pragma once

#include <cstdint>
#include <vector>

#include "pyquant/operator.h"

namespace pyquant::fbgemm_engine {

class OutputStage {
 public:
  explicit OutputStage(const Operator& op);

  // bias - zero_point * sum(weights) per channel. A kernel that multiplies the raw uint8 inputs adds
  // these. Modulo 2^32: the sum with the raw accumulator fits int32 again.
  const std::int32_t* offsets() const { return offsets_.data(); }
  // uint8: the requantization multipliers; float32: s_x * s_w.
  const float* multipliers() const { return multipliers_.data(); }

  DType dtype() const { return dtype_; }
  std::int32_t channels() const { return static_cast<std::int32_t>(offsets_.size()); }
  std::int32_t zero_point() const { return zero_point_; }
  std::int32_t low() const { return low_; }
  std::int32_t high() const { return high_; }

  // True if float(accumulator) * multiplier is within int32 for all inputs.
  bool scaled_fits_int32() const { return scaled_fits_int32_; }

  // Writes `rows` rows of channels() outputs from raw accumulators: first + second + offset. `second`
  // may be null; `first` may be `output` itself if that is float32. Needs AVX2.
  void write(const std::int32_t* first, const std::int32_t* second, std::int64_t rows,
             void* output) const;

 private:
  DType dtype_;
  std::int32_t zero_point_;
  std::int32_t low_ = 0, high_ = 255;
  bool scaled_fits_int32_ = true;
  std::vector<std::int32_t> offsets_;
  std::vector<float> multipliers_;
};

}  // namespace pyquant::fbgemm_engine
