#include <cstdlib>
#include <string>
#include <string_view>

#include "kernels/amx/kernels.h"
#include "kernels/avx2/kernels.h"
#include "kernels/avx512_vnni/kernels.h"
#include "kernels/cpu_features.h"
#include "kernels/kernel_table.h"
#include "kernels/scalar/kernels.h"
#include "pyquant/error.h"

namespace pyquant {
namespace {

struct Candidate {
  const KernelTable* table;
  bool supported;
};

const KernelTable& choose() {
  const CpuFeatures& cpu = cpu_features();
  // Best first.
  const Candidate candidates[] = {
#if defined(__x86_64__)
      {&amx::kTable, cpu.amx_int8 && cpu.avx512_vnni && cpu.avx2},
      {&avx512_vnni::kTable, cpu.avx512_vnni && cpu.avx2},
      {&avx2::kTable, cpu.avx2},
#endif
      {&scalar::kTable, true},
  };
  static_cast<void>(cpu);
  const char* forced = std::getenv("PYQUANT_ISA");
  std::string known;
  for (const Candidate& candidate : candidates) {
    if (forced == nullptr || *forced == '\0') {
      if (candidate.supported) {
        return *candidate.table;
      }
      continue;
    }
    if (std::string_view(forced) == candidate.table->isa) {
      if (!candidate.supported) {
        throw UnsupportedError(std::string("PYQUANT_ISA=") + forced +
                               ": this CPU does not have it");
      }
      return *candidate.table;
    }
    known += std::string(known.empty() ? "" : ", ") + candidate.table->isa;
  }
  throw UnsupportedError(std::string("PYQUANT_ISA=") + forced + " is unknown; this build has " +
                         known);
}

}  // namespace

const KernelTable& kernel_table() {
  static const KernelTable& table = choose();
  return table;
}

}  // namespace pyquant
