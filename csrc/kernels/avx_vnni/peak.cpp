#include "kernels/avx_vnni/kernels.h"

namespace pyquant::avx_vnni {

std::size_t multiply_adds(std::size_t loops) {
  constexpr std::size_t kInstructions = 12;  // two a cycle hide a latency of five
  for (std::size_t i = 0; i < loops; ++i) {
    asm volatile(
        "%{vex%} vpdpbusd %%ymm12, %%ymm12, %%ymm0\n\t"
        "%{vex%} vpdpbusd %%ymm12, %%ymm12, %%ymm1\n\t"
        "%{vex%} vpdpbusd %%ymm12, %%ymm12, %%ymm2\n\t"
        "%{vex%} vpdpbusd %%ymm12, %%ymm12, %%ymm3\n\t"
        "%{vex%} vpdpbusd %%ymm12, %%ymm12, %%ymm4\n\t"
        "%{vex%} vpdpbusd %%ymm12, %%ymm12, %%ymm5\n\t"
        "%{vex%} vpdpbusd %%ymm12, %%ymm12, %%ymm6\n\t"
        "%{vex%} vpdpbusd %%ymm12, %%ymm12, %%ymm7\n\t"
        "%{vex%} vpdpbusd %%ymm12, %%ymm12, %%ymm8\n\t"
        "%{vex%} vpdpbusd %%ymm12, %%ymm12, %%ymm9\n\t"
        "%{vex%} vpdpbusd %%ymm12, %%ymm12, %%ymm10\n\t"
        "%{vex%} vpdpbusd %%ymm12, %%ymm12, %%ymm11"
        :
        :
        : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10",
          "xmm11");
  }
  return loops * kInstructions * 32;
}

}  // namespace pyquant::avx_vnni
