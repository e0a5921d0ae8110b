// What dynamic quantization needs beside a multiplication: rows of float32 are quantized, each with
// qparams of its own, and accumulators become float32. And the cells of recurrent layers.
#pragma once

#include <cstddef>
#include <cstdint>

namespace pyquant {

// Of one row: x = (q - zero_point) * scale.
struct RowQParams {
  float scale;
  std::int32_t zero_point;  // 0..255
};

// Of the output channels of a layer with int8 weights.
struct ChannelConstants {
  const std::int32_t* weight_sums;
  const float* scales;
  const float* bias;
};

// One step of one row of a recurrent layer: what its gates get of the input and of the last step,
// [gate][hidden] each. h: the new hidden state. c: the cell state, in and out; null but for an
// LSTM.
using CellFunction = void (*)(const float* input_gates, const float* hidden_gates,
                              std::size_t hidden, float* h, float* c);

// Pointers need no alignment unless a function says so. All are thread-safe.
struct DynamicKernels {
  // Quantizes `rows` rows of `count` floats, x_stride apart, to rows of `padded` inputs of the
  // convolve kernel (uint8, or uint16 where it multiplies words); those from `count` on are 0.
  //
  // scale = max(max / 255 - min / 255, 2^-100), min <= 0 <= max being the row's extremes and 0;
  // zero_point = rne(-min / scale); q = clamp(rne(x / scale) + zero_point, 0, 255), where dividing
  // is multiplying by the rounded inverse. A row with NaN or infinity gets the scale NaN.
  void (*quantize_rows)(const float* x, std::size_t x_stride, std::size_t rows, std::size_t count,
                        std::size_t padded, void* q, RowQParams* qparams);

  // y = float(sum - zero_point * weight_sum) * (row scale * channel scale) + bias. sums: `rows`
  // rows of channels, sums_stride apart, with room up to the next multiple of 16 channels; so have
  // the constants.
  void (*dequantize_rows)(const std::int32_t* sums, std::size_t sums_stride, std::size_t rows,
                          const RowQParams* qparams, ChannelConstants constants,
                          std::size_t channels, float* y, std::size_t y_stride);

  // The equations and the order of gates of torch.nn.LSTM (i, f, g, o), GRU (r, z, n) and RNN.
  CellFunction lstm_cell, gru_cell, tanh_cell, relu_cell;
};

}  // namespace pyquant
