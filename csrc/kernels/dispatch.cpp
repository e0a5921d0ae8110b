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
      {&amx::kTable, cpu.amx_int8 && cpu.avx512_vbmi && cpu.avx2},
      {&avx512_vnni::kTable, cpu.avx512_vbmi && cpu.avx2},
      {&avx512_vnni::kTableWithoutVbmi, cpu.avx512_vnni && cpu.avx2},
      {&avx2::kTable, cpu.avx2},
#endif
      {&scalar::kTable, true},
  };
  static_cast<void>(cpu);
  const char* name = std::getenv("PYQUANT_ISA");
  const bool forced = name != nullptr && *name != '\0';
  bool known = false;
  std::string names;
  for (const Candidate& candidate : candidates) {
    const bool wanted = !forced || std::string_view(name) == candidate.table->isa;
    if (wanted && candidate.supported) {
      return *candidate.table;
    }
    known = known || wanted;
    if (!names.ends_with(candidate.table->isa)) {
      names += std::string(names.empty() ? "" : ", ") + candidate.table->isa;
    }
  }
  throw UnsupportedError(
      std::string("PYQUANT_ISA=") + name +
      (known ? ": this CPU does not have it" : " is unknown; this build has " + names));
}

}  // namespace

const KernelTable& kernel_table() {
  static const KernelTable& table = choose();
  return table;
}

}  // namespace pyquant
