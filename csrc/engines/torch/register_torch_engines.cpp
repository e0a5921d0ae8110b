#include "engines/engine.h"
#include "engines/qnnpack/qnnpack_engine.h"
#include "pyquant/torch_engines.h"
#if defined(__x86_64__)
#include "engines/fbgemm/fbgemm_engine.h"
#endif

namespace pyquant {
namespace {

bool register_all() {
#if defined(__x86_64__)
  register_engine(make_fbgemm_engine(), 20);
#endif
#if defined(__aarch64__)
  constexpr int kQnnpackRank = 5;
#else
  // Here QNNPACK is an SSE2 fallback, good for seeing what phones compute.
  constexpr int kQnnpackRank = 30;
#endif
  register_engine(make_qnnpack_engine(), kQnnpackRank);
  return true;
}

}  // namespace

void register_torch_engines() { [[maybe_unused]] static const bool registered = register_all(); }

}  // namespace pyquant
