#include "kernels/avx512_vnni/kernels.h"

namespace pyquant::avx512_vnni {

std::size_t multiply_adds(std::size_t loops) {
  constexpr std::size_t kInstructions = 12;  // two a cycle hide a latency of five
  for (std::size_t i = 0; i < loops; ++i) {
    asm volatile(
        "vpdpbusd %%zmm12, %%zmm12, %%zmm0\n\t"
        "vpdpbusd %%zmm12, %%zmm12, %%zmm1\n\t"
        "vpdpbusd %%zmm12, %%zmm12, %%zmm2\n\t"
        "vpdpbusd %%zmm12, %%zmm12, %%zmm3\n\t"
        "vpdpbusd %%zmm12, %%zmm12, %%zmm4\n\t"
        "vpdpbusd %%zmm12, %%zmm12, %%zmm5\n\t"
        "vpdpbusd %%zmm12, %%zmm12, %%zmm6\n\t"
        "vpdpbusd %%zmm12, %%zmm12, %%zmm7\n\t"
        "vpdpbusd %%zmm12, %%zmm12, %%zmm8\n\t"
        "vpdpbusd %%zmm12, %%zmm12, %%zmm9\n\t"
        "vpdpbusd %%zmm12, %%zmm12, %%zmm10\n\t"
        "vpdpbusd %%zmm12, %%zmm12, %%zmm11"
        :
        :
        : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10",
          "xmm11");
  }
  return loops * kInstructions * 64;
}

}  // namespace pyquant::avx512_vnni
