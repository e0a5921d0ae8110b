// What the CPU and the operating system offer, detected once.
#pragma once

namespace pyquant {

struct CpuFeatures {
  bool avx2 = false;
};

const CpuFeatures& cpu_features();

}  // namespace pyquant
