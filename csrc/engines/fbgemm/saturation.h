// FBGEMM's kernels for AVX2 and AVX-512 without VNNI multiply with vpmaddubsw, which adds the
// products of two neighbouring inputs in int16 and saturates. Whether that can happen is known from
// the weights alone: an int16 holds 255 * (|a| + |b|) as long as |a| + |b| <= 128.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace pyquant::fbgemm_engine {

// True if FBGEMM's GEMM kernels on the ISA that it uses now add in int16. VNNI adds in int32.
bool gemm_adds_in_int16();

// True if two weights that share a multiply-add could saturate it. Along a row of `depth` weights
// (one output channel) FBGEMM interleaves four inputs at a time, so that 2i and 2i + 1 share one.
bool can_saturate(std::span<const std::int8_t> weights, std::int64_t depth);

// Summands of the weights that cannot saturate: |first|, |second| <= 64.
struct Halves {
  std::vector<std::int8_t> first, second;
};
Halves split_in_halves(std::span<const std::int8_t> weights);

}  // namespace pyquant::fbgemm_engine
