#include "kernels/avx512_vnni/output.h"

namespace pyquant::avx512_vnni {

void lookup(const std::uint8_t* x, const std::uint8_t* values, std::size_t count, std::uint8_t* y) {
  const Table table(values);
  std::size_t i = 0;
  for (; i + 64 <= count; i += 64) {
    _mm512_storeu_si512(y + i, table[_mm512_loadu_si512(x + i)]);
  }
  if (i != count) {
    const __mmask64 mask = ~__mmask64{0} >> (64 - (count - i));
    _mm512_mask_storeu_epi8(y + i, mask, table[_mm512_maskz_loadu_epi8(mask, x + i)]);
  }
}

}  // namespace pyquant::avx512_vnni
