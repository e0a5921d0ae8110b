// What the CPU and the operating system offer, detected once.
#pragma once

namespace pyquant {

struct CpuFeatures {
  bool avx2 = false;
  bool avx512_vnni = false;  // with F, BW, DQ and VL
};

const CpuFeatures& cpu_features();

}  // namespace pyquant
