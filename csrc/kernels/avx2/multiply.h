// Products of words. Bytes would need vpmaddubsw, whose sums saturate in int16; see csrc/README.md
// for why the ways around that are no faster.
#pragma once

#include <immintrin.h>

namespace pyquant::avx2 {
namespace {

struct MultiplyWords {
  // sums += products of two pairs of words. As inline assembly because GCC 12 moves the
  // accumulators of large tiles to memory and back around the intrinsics.
  static __attribute__((always_inline)) void add(__m256i& sums, __m256i x, __m256i weights) {
    __m256i products;
    asm volatile(
        "vpmaddwd %3, %2, %1\n\t"
        "vpaddd %1, %0, %0"
        : "+x"(sums), "=&x"(products)
        : "x"(x), "x"(weights));
  }
};

}  // namespace
}  // namespace pyquant::avx2
