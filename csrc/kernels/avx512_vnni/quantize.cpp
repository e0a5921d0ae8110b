// Images of three channels, which is what networks begin with; the rest is left to avx2.
#include <immintrin.h>

#include "kernels/avx2/kernels.h"
#include "kernels/avx512_vnni/kernels.h"

namespace pyquant::avx512_vnni {
namespace {

constexpr std::size_t kChannels = 3;
constexpr std::size_t kPixels = 64;  // at a time

// Where the bytes of 64 pixels of three channels come from, for each 64 bytes of the result: in the
// order that four packs leave (pixel 16 v + 4 l + j at 16 l + 4 v + j), the second channel's after
// the first one's.
struct Interleaving {
  alignas(64) std::uint8_t first_two[kChannels][kPixels];
  alignas(64) std::uint8_t third[kChannels][kPixels];
  __mmask64 is_third[kChannels];

  constexpr Interleaving() : first_two(), third(), is_third() {
    for (std::size_t i = 0; i < kChannels * kPixels; ++i) {
      const std::size_t pixel = i / kChannels;
      const std::size_t channel = i % kChannels;
      const std::size_t packed = 16 * (pixel / 4 % 4) + 4 * (pixel / 16) + pixel % 4;
      const std::size_t part = i / kPixels;
      first_two[part][i % kPixels] = static_cast<std::uint8_t>(packed + 64 * (channel % 2));
      third[part][i % kPixels] = static_cast<std::uint8_t>(packed);
      if (channel == 2) {
        is_third[part] |= __mmask64{1} << (i % kPixels);
      }
    }
  }
};

constexpr Interleaving kInterleaving;

struct PlaneQuantizer {
  __m512 inverse_scale, min, max;
  __m512i zero_point;

  PlaneQuantizer(float inverse, OutputRange range)
      : inverse_scale(_mm512_set1_ps(inverse)),
        min(_mm512_set1_ps(static_cast<float>(range.low - range.zero_point))),
        max(_mm512_set1_ps(static_cast<float>(range.high - range.zero_point))),
        zero_point(_mm512_set1_epi16(static_cast<short>(range.zero_point))) {}

  // In this order of operands NaN becomes min, as in round_to_uint8.
  __m512i round(const float* x) const {
    const __m512 value = _mm512_mul_ps(_mm512_loadu_ps(x), inverse_scale);
    return _mm512_cvtps_epi32(_mm512_min_ps(_mm512_max_ps(value, min), max));
  }

  // 64 pixels of a plane, packed.
  __m512i operator()(const float* x) const {
    const __m512i first = _mm512_packs_epi32(round(x), round(x + 16));
    const __m512i second = _mm512_packs_epi32(round(x + 32), round(x + 48));
    return _mm512_packus_epi16(_mm512_add_epi16(first, zero_point),
                               _mm512_add_epi16(second, zero_point));
  }
};

}  // namespace

void quantize_planes(const float* x, std::ptrdiff_t plane, std::size_t channels, std::size_t pixels,
                     float inverse_scale, OutputRange range, std::uint8_t* y) {
  std::size_t pixel = 0;
  if (channels == kChannels) {
    const PlaneQuantizer quantize(inverse_scale, range);
    for (; pixel + kPixels <= pixels; pixel += kPixels, x += kPixels, y += kChannels * kPixels) {
      const __m512i first = quantize(x);
      const __m512i second = quantize(x + plane);
      const __m512i third = quantize(x + 2 * plane);
      for (std::size_t part = 0; part < kChannels; ++part) {
        // VBMI as inline assembly: see output.h.
        __m512i bytes = _mm512_load_si512(kInterleaving.first_two[part]);
        const __m512i indices = _mm512_load_si512(kInterleaving.third[part]);
        asm("vpermi2b %2, %1, %0" : "+v"(bytes) : "v"(first), "v"(second));
        asm("vpermb %1, %2, %0 %{%3%}"
            : "+v"(bytes)
            : "v"(third), "v"(indices), "Yk"(kInterleaving.is_third[part]));
        _mm512_storeu_si512(y + part * kPixels, bytes);
      }
    }
  }
  if (pixel != pixels) {
    avx2::quantize_planes(x, plane, channels, pixels - pixel, inverse_scale, range, y);
  }
}

}  // namespace pyquant::avx512_vnni
