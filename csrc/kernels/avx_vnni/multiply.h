// Products of bytes, in the VEX encoding: the CPUs for which this is have no AVX-512.
#pragma once

#include <immintrin.h>

namespace pyquant::avx_vnni {
namespace {

struct MultiplyBytes {
  // sums += products of four unsigned and four signed bytes; see avx2/multiply.h.
  static __attribute__((always_inline)) void add(__m256i& sums, __m256i x, __m256i weights) {
    asm volatile("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sums) : "x"(x), "x"(weights));
  }
};

}  // namespace
}  // namespace pyquant::avx_vnni
