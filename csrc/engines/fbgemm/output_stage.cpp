#include "engines/fbgemm/output_stage.h"

#include <immintrin.h>

#include <algorithm>

#include "quant/requantize.h"

namespace pyquant::fbgemm_engine {
namespace {

// Adds that may leave int32 on the way to a sum that fits.
std::int32_t wrapping_add(std::int32_t a, std::int32_t b) {
  return static_cast<std::int32_t>(static_cast<std::uint32_t>(a) + static_cast<std::uint32_t>(b));
}

__attribute__((target("avx2"))) inline __m256i load_sum(const std::int32_t* first,
                                                        const std::int32_t* second,
                                                        const std::int32_t* offsets) {
  __m256i sum = _mm256_add_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(first)),
                                 _mm256_loadu_si256(reinterpret_cast<const __m256i*>(offsets)));
  if (second != nullptr) {
    sum = _mm256_add_epi32(sum, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(second)));
  }
  return sum;
}

std::int32_t accumulator(const std::int32_t* first, const std::int32_t* second,
                         const std::int32_t* offset) {
  const std::int32_t sum = wrapping_add(*first, *offset);
  return second == nullptr ? sum : wrapping_add(sum, *second);
}

const std::int32_t* advance(const std::int32_t* pointer, std::int32_t count) {
  return pointer == nullptr ? nullptr : pointer + count;
}

__attribute__((target("avx2"))) void write_uint8(const OutputStage& stage,
                                                 const std::int32_t* first,
                                                 const std::int32_t* second, std::int64_t rows,
                                                 std::uint8_t* output) {
  const std::int32_t channels = stage.channels();
  const std::int32_t* offsets = stage.offsets();
  const float* multipliers = stage.multipliers();
  const std::int32_t zero_point = stage.zero_point();
  const __m256 min = _mm256_set1_ps(static_cast<float>(stage.low() - zero_point));
  const __m256 max = _mm256_set1_ps(static_cast<float>(stage.high() - zero_point));
  const __m256i shift = _mm256_set1_epi32(zero_point);
  for (std::int64_t row = 0; row < rows; ++row) {
    std::int32_t c = 0;
    for (; c + 8 <= channels; c += 8) {
      const __m256i sum = load_sum(first + c, advance(second, c), offsets + c);
      const __m256 scaled =
          _mm256_mul_ps(_mm256_cvtepi32_ps(sum), _mm256_loadu_ps(multipliers + c));
      // In this order of operands NaN becomes min, as in round_to_uint8.
      const __m256 clamped = _mm256_min_ps(_mm256_max_ps(scaled, min), max);
      const __m256i rounded = _mm256_add_epi32(_mm256_cvtps_epi32(clamped), shift);
      const __m128i words =
          _mm_packs_epi32(_mm256_castsi256_si128(rounded), _mm256_extracti128_si256(rounded, 1));
      _mm_storel_epi64(reinterpret_cast<__m128i*>(output + c), _mm_packus_epi16(words, words));
    }
    for (; c < channels; ++c) {
      output[c] = requantize(accumulator(first + c, advance(second, c), offsets + c),
                             multipliers[c], zero_point, stage.low(), stage.high());
    }
    first += channels;
    second = advance(second, channels);
    output += channels;
  }
}

__attribute__((target("avx2"))) void write_float(const OutputStage& stage,
                                                 const std::int32_t* first,
                                                 const std::int32_t* second, std::int64_t rows,
                                                 float* output) {
  const std::int32_t channels = stage.channels();
  const std::int32_t* offsets = stage.offsets();
  const float* multipliers = stage.multipliers();
  for (std::int64_t row = 0; row < rows; ++row) {
    std::int32_t c = 0;
    for (; c + 8 <= channels; c += 8) {
      const __m256i sum = load_sum(first + c, advance(second, c), offsets + c);
      _mm256_storeu_ps(output + c,
                       _mm256_mul_ps(_mm256_cvtepi32_ps(sum), _mm256_loadu_ps(multipliers + c)));
    }
    for (; c < channels; ++c) {
      output[c] = static_cast<float>(accumulator(first + c, advance(second, c), offsets + c)) *
                  multipliers[c];
    }
    first += channels;
    second = advance(second, channels);
    output += channels;
  }
}

}  // namespace

void OutputStage::clamp(std::uint8_t* outputs, std::int64_t count) const {
  const auto least = static_cast<std::uint8_t>(low());
  const auto largest = static_cast<std::uint8_t>(high());
  for (std::int64_t i = 0; i < count; ++i) {
    outputs[i] = std::min(std::max(outputs[i], least), largest);
  }
}

void OutputStage::write(const std::int32_t* first, const std::int32_t* second, std::int64_t rows,
                        void* output) const {
  if (dtype_ == DType::kUInt8) {
    write_uint8(*this, first, second, rows, static_cast<std::uint8_t*>(output));
  } else {
    write_float(*this, first, second, rows, static_cast<float*>(output));
  }
}

}  // namespace pyquant::fbgemm_engine
