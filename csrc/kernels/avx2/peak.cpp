#include "kernels/avx2/kernels.h"

namespace pyquant::avx2 {

// Products of 16-bit numbers, which cannot saturate, added up in 32 bits.
std::size_t multiply_adds(std::size_t loops) {
  constexpr std::size_t kInstructions = 8;
  for (std::size_t i = 0; i < loops; ++i) {
    asm volatile(
        "vpmaddwd %%ymm15, %%ymm15, %%ymm8\n\t"
        "vpaddd %%ymm8, %%ymm0, %%ymm0\n\t"
        "vpmaddwd %%ymm15, %%ymm15, %%ymm9\n\t"
        "vpaddd %%ymm9, %%ymm1, %%ymm1\n\t"
        "vpmaddwd %%ymm15, %%ymm15, %%ymm10\n\t"
        "vpaddd %%ymm10, %%ymm2, %%ymm2\n\t"
        "vpmaddwd %%ymm15, %%ymm15, %%ymm11\n\t"
        "vpaddd %%ymm11, %%ymm3, %%ymm3\n\t"
        "vpmaddwd %%ymm15, %%ymm15, %%ymm12\n\t"
        "vpaddd %%ymm12, %%ymm4, %%ymm4\n\t"
        "vpmaddwd %%ymm15, %%ymm15, %%ymm13\n\t"
        "vpaddd %%ymm13, %%ymm5, %%ymm5\n\t"
        "vpmaddwd %%ymm15, %%ymm15, %%ymm14\n\t"
        "vpaddd %%ymm14, %%ymm6, %%ymm6\n\t"
        "vpmaddwd %%ymm15, %%ymm15, %%ymm8\n\t"
        "vpaddd %%ymm8, %%ymm7, %%ymm7"
        :
        :
        : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10",
          "xmm11", "xmm12", "xmm13", "xmm14");
  }
  return loops * kInstructions * 16;
}

}  // namespace pyquant::avx2
