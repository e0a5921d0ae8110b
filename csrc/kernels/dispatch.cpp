#include "kernels/dispatch.h"

#include <atomic>
#include <cstdlib>

#include "kernels/amx/kernels.h"
#include "kernels/avx2/kernels.h"
#include "kernels/avx512_vnni/kernels.h"
#include "kernels/avx_vnni/kernels.h"
#include "kernels/cpu_features.h"
#include "kernels/kernel_table.h"
#include "kernels/neon/kernels.h"
#include "kernels/neon_dotprod/kernels.h"
#include "kernels/scalar/kernels.h"
#include "pyquant/error.h"

namespace pyquant {
namespace {

struct Candidate {
  const KernelTable* table;
  bool supported;
};

// Best first.
const std::vector<Candidate>& candidates() {
  static const std::vector<Candidate> all = [] {
    [[maybe_unused]] const CpuFeatures& cpu = cpu_features();
    return std::vector<Candidate>{
#if PYQUANT_SIMD && defined(__x86_64__)
        {&amx::kTable, cpu.amx_int8 && cpu.avx512_vbmi && cpu.avx2},
        {&avx512_vnni::kTable, cpu.avx512_vbmi && cpu.avx2},
        {&avx512_vnni::kTableWithoutVbmi, cpu.avx512_vnni && cpu.avx2},
        {&avx_vnni::kTable, cpu.avx_vnni && cpu.avx2},
        {&avx2::kTable, cpu.avx2},
#elif PYQUANT_SIMD && defined(__aarch64__)
        {&neon_dotprod::kTable, cpu.neon_dotprod},
        {&neon::kTable, true},
#endif
        {&scalar::kTable, true},
    };
  }();
  return all;
}

const KernelTable& find(std::string_view isa, std::string_view asked_by) {
  const std::string what = std::string(asked_by) + std::string(isa);
  bool known = false;
  std::string names;
  for (const Candidate& candidate : candidates()) {
    const bool wanted = isa == candidate.table->isa;
    if (wanted && candidate.supported) {
      return *candidate.table;
    }
    known = known || wanted;
    if (!names.ends_with(candidate.table->isa)) {
      names += std::string(names.empty() ? "" : ", ") + candidate.table->isa;
    }
  }
  throw UnsupportedError(
      what + (known ? ": this CPU does not have it" : " is unknown; this build has " + names));
}

const KernelTable& choose() {
  const char* forced = std::getenv("PYQUANT_ISA");
  return find(forced != nullptr && *forced != '\0' ? forced : isas().front(), "PYQUANT_ISA=");
}

std::atomic<const KernelTable*> used = nullptr;

}  // namespace

std::vector<std::string> isas() {
  std::vector<std::string> names;
  for (const Candidate& candidate : candidates()) {
    if (candidate.supported && (names.empty() || names.back() != candidate.table->isa)) {
      names.emplace_back(candidate.table->isa);
    }
  }
  return names;
}

void use_isa(std::string_view isa) { used = isa.empty() ? nullptr : &find(isa, "isa "); }

const KernelTable& kernel_table() {
  const KernelTable* table = used;
  if (table == nullptr) {
    static const KernelTable& chosen = choose();
    table = &chosen;
  }
  return *table;
}

}  // namespace pyquant
