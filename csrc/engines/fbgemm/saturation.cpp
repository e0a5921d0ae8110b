#include "engines/fbgemm/saturation.h"

#include <fbgemm/Fbgemm.h>

#include <algorithm>
#include <cstdlib>

namespace pyquant::fbgemm_engine {

bool gemm_adds_in_int16() {
  const fbgemm::inst_set_t isa = fbgemm::fbgemmInstructionSet();
  return isa != fbgemm::inst_set_t::avx512_vnni && isa != fbgemm::inst_set_t::avx512_vnni_ymm;
}

bool can_saturate(std::span<const std::int8_t> weights, std::int64_t depth) {
  constexpr int kLargestPair = 32767 / 255;
  for (std::size_t row = 0; row < weights.size(); row += static_cast<std::size_t>(depth)) {
    // An odd last weight is paired with zero.
    for (std::int64_t i = 0; i + 1 < depth; i += 2) {
      const std::int8_t* pair = &weights[row + static_cast<std::size_t>(i)];
      if (std::abs(pair[0]) + std::abs(pair[1]) > kLargestPair) {
        return true;
      }
    }
  }
  return false;
}

Halves split_in_halves(std::span<const std::int8_t> weights) {
  Halves halves;
  halves.first.resize(weights.size());
  halves.second.resize(weights.size());
  for (std::size_t i = 0; i < weights.size(); ++i) {
    halves.first[i] = static_cast<std::int8_t>(weights[i] / 2);
    halves.second[i] = static_cast<std::int8_t>(weights[i] - halves.first[i]);
  }
  return halves;
}

}  // namespace pyquant::fbgemm_engine
