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
  for_each_vector<kBytes>(count, [&](std::size_t i, auto lanes) {
    const typename V::Float value = V::load(x + i, lanes);
    low = V::min(value, low);
    high = V::max(value, high);
    check += value * 0.0F;  // NaN for NaN and infinity
  });
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
    float inverse = 0.0F;
    const RowQParams chosen = choose_qparams<kBytes>(x, count, &inverse);
    qparams[row] = chosen;
    const typename V::Float factor = V::all(inverse);
    const typename V::Int zero_point = V::all(chosen.zero_point);
    const auto quantize = [&](std::size_t i, auto lanes) {
      const typename V::Int steps = V::round(V::load(x + i, lanes) * factor) + zero_point;
      return __builtin_convertvector(V::clamp(steps, 0, 255), typename V::template Inputs<Input>);
    };
    std::size_t i = 0;
    for (; i + V::kLanes <= count; i += V::kLanes) {
      const auto inputs = quantize(i, Whole{});
      __builtin_memcpy(y + i, &inputs, sizeof(inputs));
    }
    if (i != count) {
      const auto inputs = quantize(i, Part{count - i});
      for (std::size_t lane = 0; i != count; ++i, ++lane) {
        y[i] = inputs[lane];
      }
    }
    for (; i != padded; ++i) {
      y[i] = 0;
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
    for_each_vector<kBytes>(channels, [&](std::size_t i, auto lanes) {
      const auto sum = V::load(sums + i) - zero_point * V::load(constants.weight_sums + i);
      const auto value = V::to_float(sum) * (scale * V::load(constants.scales + i));
      V::store(y + i, value + V::load(constants.bias + i), lanes);
    });
  }
}

template <std::size_t kBytes>
void lstm_cell(const float* x, const float* r, std::size_t hidden, float* h, float* c) {
  using V = Vector<kBytes>;
  for_each_vector<kBytes>(hidden, [&](std::size_t i, auto lanes) {
    const auto gate = [&](std::size_t g) {
      return V::load(x + g * hidden + i, lanes) + V::load(r + g * hidden + i, lanes);
    };
    const auto kept = V::sigmoid(gate(1)) * V::load(c + i, lanes);
    const auto cell = kept + V::sigmoid(gate(0)) * V::tanh(gate(2));
    V::store(c + i, cell, lanes);
    V::store(h + i, V::sigmoid(gate(3)) * V::tanh(cell), lanes);
  });
}

template <std::size_t kBytes>
void gru_cell(const float* x, const float* r, std::size_t hidden, float* h, float* /*c*/) {
  using V = Vector<kBytes>;
  for_each_vector<kBytes>(hidden, [&](std::size_t i, auto lanes) {
    const auto input = [&](std::size_t g) { return V::load(x + g * hidden + i, lanes); };
    const auto last = [&](std::size_t g) { return V::load(r + g * hidden + i, lanes); };
    const auto reset = V::sigmoid(input(0) + last(0));
    const auto update = V::sigmoid(input(1) + last(1));
    const auto candidate = V::tanh(input(2) + reset * last(2));
    const auto kept = update * V::load(h + i, lanes);
    V::store(h + i, (1.0F - update) * candidate + kept, lanes);
  });
}

template <std::size_t kBytes>
void tanh_cell(const float* x, const float* r, std::size_t hidden, float* h, float* /*c*/) {
  using V = Vector<kBytes>;
  for_each_vector<kBytes>(hidden, [&](std::size_t i, auto lanes) {
    V::store(h + i, V::tanh(V::load(x + i, lanes) + V::load(r + i, lanes)), lanes);
  });
}

template <std::size_t kBytes>
void relu_cell(const float* x, const float* r, std::size_t hidden, float* h, float* /*c*/) {
  using V = Vector<kBytes>;
  for_each_vector<kBytes>(hidden, [&](std::size_t i, auto lanes) {
    const auto value = V::load(x + i, lanes) + V::load(r + i, lanes);
    const typename V::Float zero{};
    V::store(h + i, zero > value ? zero : value, lanes);
  });
}

// kBytes: of a vector. Input: what the instruction set's convolve kernel multiplies.
template <std::size_t kBytes, typename Input>
constexpr DynamicKernels dynamic_kernels() noexcept {
  return {quantize_rows<kBytes, Input>,
          dequantize_rows<kBytes>,
          lstm_cell<kBytes>,
          gru_cell<kBytes>,
          tanh_cell<kBytes>,
          relu_cell<kBytes>};
}

}  // namespace
}  // namespace pyquant
