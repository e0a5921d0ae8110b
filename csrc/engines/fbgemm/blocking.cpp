#include "engines/fbgemm/blocking.h"

#include "pyquant/error.h"

namespace pyquant::fbgemm_engine {
namespace {

using fbgemm::inst_set_t;

template <inst_set_t kIsa>
constexpr fbgemm::BlockingFactors defaults() {
  using Traits = fbgemm::PackingTraits<std::uint8_t, std::int32_t, kIsa>;
  return {.MR = Traits::MR,
          .NR = Traits::NR,
          .NR_MIN = Traits::NR_MIN,
          .ROW_INTERLEAVE = Traits::ROW_INTERLEAVE,
          .MCB = Traits::MCB,
          .KCB = Traits::KCB,
          .NCB = Traits::NCB};
}

fbgemm::BlockingFactors defaults() {
  switch (fbgemm::fbgemmInstructionSet()) {
    case inst_set_t::avx512_vnni:
      return defaults<inst_set_t::avx512_vnni>();
    case inst_set_t::avx512_vnni_ymm:
      return defaults<inst_set_t::avx512_vnni_ymm>();
    case inst_set_t::avx512:
      return defaults<inst_set_t::avx512>();
    case inst_set_t::avx512_ymm:
      return defaults<inst_set_t::avx512_ymm>();
    case inst_set_t::avx2:
      return defaults<inst_set_t::avx2>();
    default:
      throw UnsupportedError("FBGEMM needs a CPU with AVX2");
  }
}

// FBGEMM's register block for VNNI is 8 rows by 48 columns of outputs. What remains of 64 columns
// is a block of 16, which keeps too few accumulators busy: 14 by 32 is up to 25 % faster there.
void fit_columns(const Layer& layer, fbgemm::BlockingFactors& blocking) {
  const std::int32_t last = layer.out_channels % blocking.NR;
  if (fbgemm::fbgemmInstructionSet() == inst_set_t::avx512_vnni && layer.groups == 1 && last != 0 &&
      last <= blocking.NR_MIN && layer.out_channels > blocking.NR) {
    blocking.MR = 14;
    blocking.NR = blocking.NCB = 32;
    blocking.MCB = 112;
  }
}

// PackAWithIm2Col has a shortcut for three-channel inputs with stride 2 that copies whole kernel
// rows. It writes past its buffer where the kernel does not fit one block, and where a window
// starts beyond the right edge of the image.
bool shortcut_overruns(const Layer& layer, int block_depth) {
  return layer.in_channels == 3 &&
         (layer.depth() > block_depth || layer.window.pad_right > layer.window.kernel_w);
}

}  // namespace

fbgemm::BlockingFactors blocking_factors(const Layer& layer) {
  fbgemm::BlockingFactors blocking = defaults();
  fit_columns(layer, blocking);
  if (shortcut_overruns(layer, blocking.KCB)) {
    // The shortcut is taken for blocks of 256 and 512 only.
    blocking.KCB -= blocking.ROW_INTERLEAVE;
  }
  return blocking;
}

}  // namespace pyquant::fbgemm_engine
