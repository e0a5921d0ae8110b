// What the CPU and the operating system offer, detected once.
#pragma once

namespace pyquant {

struct CpuFeatures {
  bool avx2 = false;
  bool avx_vnni = false;     // in its VEX encoding, without AVX-512
  bool avx512_vnni = false;  // with F, BW, DQ and VL
  bool avx512_vbmi = false;
  bool amx_int8 = false;      // with the kernel's permission to use it
  bool neon_dotprod = false;  // ARMv8.2's sdot and udot
};

const CpuFeatures& cpu_features();

}  // namespace pyquant
