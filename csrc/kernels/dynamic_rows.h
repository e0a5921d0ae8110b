// The functions of DynamicKernels for vectors of one length; see float_vector.h.
#pragma once

#include "kernels/dynamic_kernels.h"
#include "kernels/float_vector.h"

namespace pyquant {
namespace {

template <std::size_t kBytes>
PYQUANT_VECTOR_INLINE RowQParams choose_qparams(const float* x, std::size_t count,
                                                float* inverse_scale) {
  using V = Vector<kBytes>;
  typename V::Float low{}, high{}, check{};
  for (std::size_t i = 0; i < count; i += V::kLanes) {
    const typename V::Float value = V::load(x + i, count - i);
    low = V::min(value, low);
    high = V::max(value, high);
    check += value * 0.0F;  // NaN for NaN and infinity
  }
  float min = 0.0F, max = 0.0F, finite = 0.0F;
  for (std::size_t lane = 0; lane < V::kLanes; ++lane) {
    min = low[lane] < min ? low[lane] : min;
    max = high[lane] > max ? high[lane] : max;
    finite += check[lane];
  }
  constexpr float kSmallest = 7.8886090522101181e-31F;  // 2^-100
  const float wanted = max / 255.0F - min / 255.0F;
  const float scale = wanted > kSmallest ? wanted : kSmallest;
  *inverse_scale = 1.0F / scale;
  if (finite != 0.0F) {
    *inverse_scale = 0.0F;
    return {finite, 0};
  }
  const float zero_point = (-min * *inverse_scale + V::kRound) - V::kRound;
  return {scale, static_cast<std::int32_t>(zero_point < 255.0F ? zero_point : 255.0F)};
}

template <std::size_t kBytes, typename Input>
void quantize_rows(const float* x, std::size_t x_stride, std::size_t rows, std::size_t count,
                   std::size_t padded, void* q, RowQParams* qparams) {
  using V = Vector<kBytes>;
  auto* y = static_cast<Input*>(q);
  for (std::size_t row = 0; row < rows; ++row, x += x_stride, y += padded) {
    float inverse;
    const RowQParams chosen = choose_qparams<kBytes>(x, count, &inverse);
    qparams[row] = chosen;
    const typename V::Float factor = V::all(inverse);
    const typename V::Int zero_point = V::all(chosen.zero_point);
    for (std::size_t i = 0; i < padded; i += V::kLanes) {
      const std::size_t left = i < count ? count - i : 0;
      const typename V::Int steps = V::round(V::load(x + i, left) * factor) + zero_point;
      const auto inputs =
          __builtin_convertvector(V::clamp(steps, 0, 255), typename V::template Inputs<Input>);
      if (left >= V::kLanes) {
        __builtin_memcpy(y + i, &inputs, sizeof(inputs));
        continue;
      }
      for (std::size_t lane = 0; lane < V::kLanes && i + lane < padded; ++lane) {
        y[i + lane] = lane < left ? inputs[lane] : Input{0};
      }
    }
  }
}

template <std::size_t kBytes>
void dequantize_rows(const std::int32_t* sums, std::size_t sums_stride, std::size_t rows,
                     const RowQParams* qparams, ChannelConstants constants, std::size_t channels,
                     float* y, std::size_t y_stride) {
  using V = Vector<kBytes>;
  for (std::size_t row = 0; row < rows; ++row, sums += sums_stride, y += y_stride) {
    const typename V::Int zero_point = V::all(qparams[row].zero_point);
    const typename V::Float scale = V::all(qparams[row].scale);
    for (std::size_t i = 0; i < channels; i += V::kLanes) {
      const auto sum = V::load(sums + i) - zero_point * V::load(constants.weight_sums + i);
      const auto value = V::to_float(sum) * (scale * V::load(constants.scales + i));
      V::store(y + i, value + V::load(constants.bias + i), channels - i);
    }
  }
}

// Calls visit(first unit, count) for each vector of hidden units.
template <std::size_t kBytes, typename Visit>
PYQUANT_VECTOR_INLINE void for_units(std::size_t hidden, Visit visit) {
  std::size_t i = 0;
  for (; i + Vector<kBytes>::kLanes <= hidden; i += Vector<kBytes>::kLanes) {
    visit(i, Vector<kBytes>::kLanes);
  }
  if (i != hidden) {
    visit(i, hidden - i);
  }
}

template <std::size_t kBytes>
void lstm_cell(const float* x, const float* r, std::size_t hidden, float* h, float* c) {
  using V = Vector<kBytes>;
  for_units<kBytes>(hidden, [&](std::size_t i, std::size_t count) {
    const auto gate = [&](std::size_t g) {
      return V::load(x + g * hidden + i, count) + V::load(r + g * hidden + i, count);
    };
    const auto kept = V::sigmoid(gate(1)) * V::load(c + i, count);
    const auto cell = kept + V::sigmoid(gate(0)) * V::tanh(gate(2));
    V::store(c + i, cell, count);
    V::store(h + i, V::sigmoid(gate(3)) * V::tanh(cell), count);
  });
}

template <std::size_t kBytes>
void gru_cell(const float* x, const float* r, std::size_t hidden, float* h, float* /*c*/) {
  using V = Vector<kBytes>;
  for_units<kBytes>(hidden, [&](std::size_t i, std::size_t count) {
    const auto input = [&](std::size_t g) { return V::load(x + g * hidden + i, count); };
    const auto last = [&](std::size_t g) { return V::load(r + g * hidden + i, count); };
    const auto reset = V::sigmoid(input(0) + last(0));
    const auto update = V::sigmoid(input(1) + last(1));
    const auto candidate = V::tanh(input(2) + reset * last(2));
    const auto kept = update * V::load(h + i, count);
    V::store(h + i, (1.0F - update) * candidate + kept, count);
  });
}

template <std::size_t kBytes>
void tanh_cell(const float* x, const float* r, std::size_t hidden, float* h, float* /*c*/) {
  using V = Vector<kBytes>;
  for_units<kBytes>(hidden, [&](std::size_t i, std::size_t count) {
    V::store(h + i, V::tanh(V::load(x + i, count) + V::load(r + i, count)), count);
  });
}

template <std::size_t kBytes>
void relu_cell(const float* x, const float* r, std::size_t hidden, float* h, float* /*c*/) {
  using V = Vector<kBytes>;
  for_units<kBytes>(hidden, [&](std::size_t i, std::size_t count) {
    const auto value = V::load(x + i, count) + V::load(r + i, count);
    const typename V::Float zero{};
    V::store(h + i, zero > value ? zero : value, count);
  });
}

// kBytes: of a vector. Input: what the instruction set's convolve kernel multiplies.
template <std::size_t kBytes, typename Input>
constexpr DynamicKernels dynamic_kernels() {
  return {quantize_rows<kBytes, Input>,
          dequantize_rows<kBytes>,
          lstm_cell<kBytes>,
          gru_cell<kBytes>,
          tanh_cell<kBytes>,
          relu_cell<kBytes>};
}

}  // namespace
}  // namespace pyquant
