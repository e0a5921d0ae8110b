#include "kernels/avx2/kernels.h"
#include "kernels/avx2/rounding.h"
#include "kernels/scalar/kernels.h"

namespace pyquant::avx2 {
namespace {

constexpr std::size_t kStep = 8;  // pixels at a time

// `count` bytes of each of eight little-endian words go to eight pixels.
template <std::size_t kCount>
inline void scatter(const std::uint32_t* words, std::size_t stride, std::uint8_t* y) {
  for (std::size_t pixel = 0; pixel < kStep; ++pixel) {
    for (std::size_t byte = 0; byte < kCount; ++byte) {
      y[pixel * stride + byte] = static_cast<std::uint8_t>(words[pixel] >> (8 * byte));
    }
  }
}

using Scatter = void (*)(const std::uint32_t*, std::size_t, std::uint8_t*);
constexpr Scatter kScatters[] = {nullptr, scatter<1>, scatter<2>, scatter<3>, scatter<4>};

}  // namespace

void quantize_planes(const float* x, std::ptrdiff_t plane, std::size_t channels, std::size_t pixels,
                     float inverse_scale, OutputRange range, std::uint8_t* y) {
  const Rounder rounder(range);
  const __m256 inverse = _mm256_set1_ps(inverse_scale);
  const std::size_t vector_pixels = pixels - pixels % kStep;
  if (channels == 1) {
    for (std::size_t p = 0; p < vector_pixels; p += kStep) {
      store8(y + p, narrow(rounder.round(_mm256_mul_ps(_mm256_loadu_ps(x + p), inverse))));
    }
  } else {
    // Up to four channels of eight pixels become eight words of interleaved bytes.
    alignas(32) std::uint32_t words[kStep];
    for (std::size_t c = 0; c < channels; c += 4) {
      const std::size_t group = channels - c < 4 ? channels - c : 4;
      const float* planes = x + static_cast<std::ptrdiff_t>(c) * plane;
      for (std::size_t p = 0; p < vector_pixels; p += kStep) {
        __m256i interleaved = _mm256_setzero_si256();
        for (std::size_t i = 0; i < group; ++i) {
          const __m256 value = _mm256_loadu_ps(planes + static_cast<std::ptrdiff_t>(i) * plane + p);
          const __m256i q = rounder.round(_mm256_mul_ps(value, inverse));
          interleaved = _mm256_or_si256(
              interleaved, _mm256_sll_epi32(q, _mm_cvtsi32_si128(static_cast<int>(8 * i))));
        }
        _mm256_store_si256(reinterpret_cast<__m256i*>(words), interleaved);
        kScatters[group](words, channels, y + p * channels + c);
      }
    }
  }
  if (vector_pixels != pixels) {
    scalar::quantize_planes(x + vector_pixels, plane, channels, pixels - vector_pixels,
                            inverse_scale, range, y + vector_pixels * channels);
  }
}

void dequantize_planes(const std::uint8_t* x, std::size_t channels, std::size_t pixels, float scale,
                       std::int32_t zero_point, std::ptrdiff_t plane, float* y) {
  if (channels != 1) {
    // Rare (a model that returns a feature map) and bound by its strided reads.
    scalar::dequantize_planes(x, channels, pixels, scale, zero_point, plane, y);
    return;
  }
  const __m256i zero = _mm256_set1_epi32(zero_point);
  const __m256 factor = _mm256_set1_ps(scale);
  std::size_t p = 0;
  for (; p + kStep <= pixels; p += kStep) {
    const __m256 value = _mm256_cvtepi32_ps(_mm256_sub_epi32(widen(x + p), zero));
    _mm256_storeu_ps(y + p, _mm256_mul_ps(value, factor));
  }
  if (p != pixels) {
    scalar::dequantize_planes(x + p, 1, pixels - p, scale, zero_point, plane, y + p);
  }
}

void requantize(const std::int32_t* sums, std::int32_t offset, float multiplier, std::size_t count,
                OutputRange range, std::uint8_t* y) {
  const Rounder rounder(range);
  const __m256i offsets = _mm256_set1_epi32(offset);
  const __m256 factor = _mm256_set1_ps(multiplier);
  std::size_t i = 0;
  for (; i + kStep <= count; i += kStep) {
    const __m256i sum = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(sums + i));
    const __m256 value = _mm256_cvtepi32_ps(_mm256_sub_epi32(sum, offsets));
    store8(y + i, narrow(rounder.round(_mm256_mul_ps(value, factor))));
  }
  if (i != count) {
    scalar::requantize(sums + i, offset, multiplier, count - i, range, y + i);
  }
}

}  // namespace pyquant::avx2
