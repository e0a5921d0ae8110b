#include "engines/fbgemm/output_stage.h"

#include <immintrin.h>

#include <algorithm>
#include <cmath>

#include "quant/requantize.h"

namespace pyquant::fbgemm_engine {
namespace {

// Adds that may leave int32 on the way to a sum that fits.
std::int32_t wrapping_add(std::int32_t a, std::int32_t b) {
  return static_cast<std::int32_t>(static_cast<std::uint32_t>(a) + static_cast<std::uint32_t>(b));
}

__attribute__((target("avx2"))) inline __m256i load(const std::int32_t* first,
                                                    const std::int32_t* second,
                                                    const std::int32_t* offsets) {
  __m256i sum = _mm256_add_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(first)),
                                 _mm256_loadu_si256(reinterpret_cast<const __m256i*>(offsets)));
  if (second != nullptr) {
    sum = _mm256_add_epi32(sum, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(second)));
  }
  return sum;
}

__attribute__((target("avx2"))) void write_uint8_row(const OutputStage& stage,
                                                     const std::int32_t* first,
                                                     const std::int32_t* second,
                                                     std::uint8_t* output) {
  const std::int32_t channels = stage.channels();
  const std::int32_t zero_point = stage.zero_point();
  const __m256 min = _mm256_set1_ps(static_cast<float>(stage.low() - zero_point));
  const __m256 max = _mm256_set1_ps(static_cast<float>(stage.high() - zero_point));
  const __m256i shift = _mm256_set1_epi32(zero_point);
  std::int32_t c = 0;
  for (; c + 8 <= channels; c += 8) {
    const __m256i sum =
        load(first + c, second == nullptr ? nullptr : second + c, stage.offsets() + c);
    const __m256 scaled =
        _mm256_mul_ps(_mm256_cvtepi32_ps(sum), _mm256_loadu_ps(stage.multipliers() + c));
    // In this order of operands NaN becomes min, as in round_to_uint8.
    const __m256 clamped = _mm256_min_ps(_mm256_max_ps(scaled, min), max);
    const __m256i rounded = _mm256_add_epi32(_mm256_cvtps_epi32(clamped), shift);
    const __m128i words =
        _mm_packs_epi32(_mm256_castsi256_si128(rounded), _mm256_extracti128_si256(rounded, 1));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(output + c), _mm_packus_epi16(words, words));
  }
  for (; c < channels; ++c) {
    std::int32_t sum = wrapping_add(first[c], stage.offsets()[c]);
    if (second != nullptr) {
      sum = wrapping_add(sum, second[c]);
    }
    output[c] =
        requantize(sum, stage.multipliers()[c], zero_point, stage.low(), stage.high());
  }
}

// `output` may be `first`: element c is written after it was read.
__attribute__((target("avx2"))) void write_float_row(const OutputStage& stage,
                                                     const std::int32_t* first,
                                                     const std::int32_t* second, float* output) {
  const std::int32_t channels = stage.channels();
  std::int32_t c = 0;
  for (; c + 8 <= channels; c += 8) {
    const __m256i sum =
        load(first + c, second == nullptr ? nullptr : second + c, stage.offsets() + c);
    _mm256_storeu_ps(output + c, _mm256_mul_ps(_mm256_cvtepi32_ps(sum),
                                               _mm256_loadu_ps(stage.multipliers() + c)));
  }
  for (; c < channels; ++c) {
    std::int32_t sum = wrapping_add(first[c], stage.offsets()[c]);
    if (second != nullptr) {
      sum = wrapping_add(sum, second[c]);
    }
    output[c] = static_cast<float>(sum) * stage.multipliers()[c];
  }
}

}  // namespace

OutputStage::OutputStage(const Operator& op)
    : dtype_(op.output.dtype), zero_point_(op.output.qparams.zero_point) {
  std::visit(
      [this](const auto& attributes) {
        if constexpr (requires { attributes.output_min; }) {
          low_ = attributes.output_min;
          high_ = attributes.output_max;
        }
      },
      op.attributes);

  const QParams& input = op.inputs[0].qparams;
  const Operand& weight = op.inputs[1];
  const auto* weights = static_cast<const std::int8_t*>(weight.constant.data);
  const auto* bias = static_cast<const std::int32_t*>(op.inputs[2].constant.data);
  const std::int64_t channels = weight.constant.shape[0];
  const std::int64_t depth = weight.constant.shape.elements() / channels;
  const std::int64_t widest_input = std::max(input.zero_point, 255 - input.zero_point);

  for (std::int64_t o = 0; o < channels; ++o) {
    std::int64_t sum = 0, magnitude = 0;
    for (std::int64_t i = 0; i < depth; ++i) {
      sum += weights[o * depth + i];
      magnitude += std::abs(weights[o * depth + i]);
    }
    offsets_.push_back(static_cast<std::int32_t>(
        static_cast<std::uint32_t>(bias[o] - input.zero_point * sum)));
    multipliers_.push_back(dtype_ == DType::kUInt8
                               ? requantize_multiplier(input.scale, weight.channel_scales[o],
                                                       op.output.qparams.scale)
                               : input.scale * weight.channel_scales[o]);
    // Half the range leaves room for the roundings. A multiplier that is infinite fails, too.
    const double largest = static_cast<double>(widest_input * magnitude) + std::abs(double{1} * bias[o]);
    scaled_fits_int32_ =
        scaled_fits_int32_ && largest * static_cast<double>(multipliers_.back()) < 0x1p30;
  }
}

void OutputStage::write(const std::int32_t* first, const std::int32_t* second, std::int64_t rows,
                        void* output) const {
  for (std::int64_t row = 0; row < rows; ++row) {
    const std::int64_t start = row * channels();
    const std::int32_t* second_row = second == nullptr ? nullptr : second + start;
    if (dtype_ == DType::kUInt8) {
      write_uint8_row(*this, first + start, second_row, static_cast<std::uint8_t*>(output) + start);
    } else {
      write_float_row(*this, first + start, second_row, static_cast<float*>(output) + start);
    }
  }
}

}  // namespace pyquant::fbgemm_engine
