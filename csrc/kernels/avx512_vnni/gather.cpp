// Rows of an image of few channels, column by column.
#include "kernels/avx512_vnni/output.h"

namespace pyquant::avx512_vnni {
namespace {

// Replaces the bytes of the mask by those at the indices. With VBMI; as inline assembly because
// this folder is compiled for CPUs without it, too.
PYQUANT_INLINE void permute_into(__m512i& target, __mmask64 mask, __m512i indices, __m512i bytes) {
  asm("vpermb %3, %2, %0%{%1%}" : "+v"(target) : "Yk"(mask), "v"(indices), "v"(bytes));
}
PYQUANT_INLINE __m512i permuted(__m512i indices, __m512i bytes) {
  __m512i result;
  asm("vpermb %2, %1, %0" : "=v"(result) : "v"(indices), "v"(bytes));
  return result;
}

// Where the bytes of as many columns as fill 64 bytes come from, and which are each row's.
template <std::size_t kRows, std::size_t kChannels>
struct Columns {
  static constexpr std::size_t kBytes = kRows * kChannels;  // of a column
  static constexpr std::size_t kCount = 64 / kBytes;

  alignas(64) std::uint8_t sources[64];
  __mmask64 masks[kRows];

  constexpr Columns() : sources(), masks() {
    for (std::size_t i = 0; i < kCount * kBytes; ++i) {
      const std::size_t inside = i % kBytes;
      sources[i] = static_cast<std::uint8_t>(i / kBytes * kChannels + inside % kChannels);
      masks[inside / kChannels] |= __mmask64{1} << i;
    }
  }
};

template <std::size_t kRows, std::size_t kChannels>
void gather(const std::uint8_t* const* rows, std::size_t count, std::size_t slack,
            std::uint8_t* y) {
  using Few = Columns<kRows, kChannels>;
  static constexpr Few kFew;
  constexpr __mmask64 kStored = ~__mmask64{0} >> (64 - Few::kCount * Few::kBytes);
  const __m512i indices = _mm512_load_si512(kFew.sources);
  std::size_t column = 0;
  while (column < count) {
    // The last ones again, if there are fewer.
    const bool enough = column + Few::kCount <= count || count < Few::kCount;
    const std::size_t first = enough ? column : count - Few::kCount;
    if (first + Few::kCount > count || first * kChannels + 64 > count * kChannels + slack) {
      break;
    }
    // What the other rows do not replace is the first one's.
    __m512i bytes = permuted(indices, _mm512_loadu_si512(rows[0] + first * kChannels));
#pragma GCC unroll 8
    for (std::size_t row = 1; row < kRows; ++row) {
      permute_into(bytes, kFew.masks[row], indices,
                   _mm512_loadu_si512(rows[row] + first * kChannels));
    }
    _mm512_mask_storeu_epi8(y + first * Few::kBytes, kStored, bytes);
    column = first + Few::kCount;
  }
  for (std::uint8_t* target = y + column * Few::kBytes; column < count; ++column) {
    for (std::size_t row = 0; row < kRows; ++row) {
      for (std::size_t channel = 0; channel < kChannels; ++channel) {
        *target++ = rows[row][column * kChannels + channel];
      }
    }
  }
}

using Function = void (*)(const std::uint8_t* const*, std::size_t, std::size_t, std::uint8_t*);

template <std::size_t kRows>
constexpr Function function_of(std::size_t channels) {
  constexpr Function kFunctions[kMostGatheredChannels] = {gather<kRows, 1>, gather<kRows, 2>,
                                                          gather<kRows, 3>, gather<kRows, 4>};
  return kFunctions[channels - 1];
}

}  // namespace

void gather_columns(const std::uint8_t* const* rows, std::size_t row_count, std::size_t channels,
                    std::size_t count, std::size_t slack, std::uint8_t* y) {
  constexpr Function (*kFunctions[kMostGatheredRows])(std::size_t) = {
      function_of<1>, function_of<2>, function_of<3>, function_of<4>,
      function_of<5>, function_of<6>, function_of<7>};
  kFunctions[row_count - 1](channels)(rows, count, slack, y);
}

}  // namespace pyquant::avx512_vnni
