// int8 weights as the convolve kernels read them, multiplied with rows that are quantized as they
// come: what DynamicLinear and RecurrentLayer are made of.
#pragma once

#include <cstdint>
#include <vector>

#include "engines/native/packed_weights.h"
#include "kernels/kernel_table.h"
#include "pyquant/dynamic_linear.h"
#include "runtime/thread_pool.h"

namespace pyquant {

// Rows after quantization; the memory is somebody else's.
struct QuantizedRows {
  std::uint8_t* inputs = nullptr;  // row_bytes() each
  RowQParams* qparams = nullptr;
};

class DynamicMatrix {
 public:
  // Throws as DynamicLinear does; `name` is for messages.
  DynamicMatrix(const Int8Weights& weights, const char* name);

  std::size_t inputs() const { return inputs_; }
  std::size_t outputs() const { return outputs_; }
  // Of a quantized row.
  std::size_t row_bytes() const { return row_bytes_; }
  std::int64_t blocks() const { return static_cast<std::int64_t>(packed_.blocks().size()); }
  // int32 of scratch for multiply().
  std::size_t sums() const;

  // x: rows of inputs() floats, x_stride apart, become rows from `first` on of `to`.
  void quantize(const float* x, std::size_t x_stride, std::size_t rows, const QuantizedRows& to,
                std::size_t first = 0) const;

  // The outputs of some blocks, for `rows` rows. y: row 0, output 0.
  void multiply(const QuantizedRows& x, std::size_t rows, Range blocks, std::int32_t* sums,
                float* y, std::size_t y_stride) const;

 private:
  std::size_t inputs_, outputs_;
  std::size_t padded_inputs_, row_bytes_ = 0;
  const KernelTable& kernels_;
  native::PackedWeights packed_;
  AlignedBuffer constants_;
  ChannelConstants channels_{};
};

}  // namespace pyquant
