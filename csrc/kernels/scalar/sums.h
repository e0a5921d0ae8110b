// The accumulators of one output pixel.
#pragma once

#include "kernels/scalar/kernels.h"

namespace pyquant::scalar {

inline constexpr std::size_t kVectorChannels = 4;
inline constexpr std::size_t kStepInputs = 4;

template <std::size_t kVectors>
class Sums {
 public:
  static constexpr std::size_t kLanes = kVectors * kVectorChannels;

  explicit Sums(const std::int32_t* offsets) {
    for (std::size_t lane = 0; lane < kLanes; ++lane) {
      sums_[lane] = static_cast<std::uint32_t>(offsets[lane]);
    }
  }

  // product(lane, i): of the input and the weight number i of a step.
  template <typename Product>
  void add(Product product) {
    for (std::size_t lane = 0; lane < kLanes; ++lane) {
      for (std::size_t i = 0; i < kStepInputs; ++i) {
        sums_[lane] += static_cast<std::uint32_t>(product(lane, i));
      }
    }
  }

  void get(std::int32_t* values) const {
    for (std::size_t lane = 0; lane < kLanes; ++lane) {
      values[lane] = static_cast<std::int32_t>(sums_[lane]);
    }
  }

 private:
  std::uint32_t sums_[kLanes];  // modulo 2^32, as the offsets are
};

}  // namespace pyquant::scalar
