#include "kernels/scalar/kernels.h"

namespace pyquant::scalar {

bool min_max(const float* x, std::size_t count, float* min, float* max) {
  float low = x[0];
  float high = x[0];
  bool finite = true;
  for (std::size_t i = 0; i < count; ++i) {
    low = x[i] < low ? x[i] : low;
    high = x[i] > high ? x[i] : high;
    finite &= x[i] - x[i] == 0.0F;  // NaN for NaN and infinity
  }
  *min = low;
  *max = high;
  return finite;
}

std::size_t histogram_bins(const float* x, std::size_t count, BinLayout layout,
                           std::uint16_t* bins) {
  std::size_t written = 0;
  for (std::size_t i = 0; i < count; ++i) {
    const float above = x[i] < layout.low ? layout.low : x[i];
    const float value = above > layout.high ? layout.high : above;
    const auto distance = static_cast<std::int32_t>(value * layout.inverse_width);
    bins[written] = static_cast<std::uint16_t>(layout.zero + distance -
                                               static_cast<std::int32_t>(value < 0.0F));
    written += static_cast<std::size_t>(value != 0.0F);
  }
  return written;
}

}  // namespace pyquant::scalar
