// One direction of one layer of an LSTM, GRU or plain RNN with int8 weights, all time steps in one
// call. Gates and equations are those of torch.nn; multiplications are those of dynamic_linear.h,
// the states being quantized at every step, each row by itself. sigmoid and tanh are polynomials
// with absolute errors below 2^-20 (kernels/float_vector.h), a hundredth of what 8 bits can show.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "pyquant/dynamic_linear.h"
#include "pyquant/export.h"

namespace pyquant {

enum class RecurrentCell : std::uint8_t { kLstm, kGru, kTanh, kRelu };

// The rows of weights that a hidden unit has: 4, 3, 1, 1.
PYQUANT_API std::int64_t gate_count(RecurrentCell cell);

// Sequences of different lengths lie as torch's PackedSequence has them: sorted by length, the
// longest first, all rows of one step side by side. Of sequences of one length all counts are
// equal.
struct RecurrentArgs {
  const float* x = nullptr;                   // [sum of batch_sizes, inputs]
  std::span<const std::int64_t> batch_sizes;  // rows of each step: at least 1, never increasing
  float* y = nullptr;                         // [sum of batch_sizes] rows of outputs(), or of more:
  std::int64_t y_stride = 0;                  // floats from one row to the next
  float* h = nullptr;    // [batch_sizes[0], outputs()]: first state in, last out
  float* c = nullptr;    // [batch_sizes[0], hidden()]: likewise; for an LSTM
  bool reverse = false;  // from each sequence's end to its beginning
};

// Immutable; shared by all threads, each with a Workspace of its own.
class PYQUANT_API RecurrentLayer {
 public:
  // input: [gates * hidden, inputs]; state: [gates * hidden, outputs]; projection: [outputs,
  // hidden] without bias, or no weights at all, and then outputs == hidden; for an LSTM only.
  // Throws InvalidInputError where sizes do not fit.
  RecurrentLayer(RecurrentCell cell, const Int8Weights& input, const Int8Weights& state,
                 const Int8Weights& projection = {});
  ~RecurrentLayer();
  RecurrentLayer(RecurrentLayer&&) noexcept;
  RecurrentLayer& operator=(RecurrentLayer&&) noexcept;

  RecurrentCell cell() const;
  std::int64_t inputs() const;
  std::int64_t hidden() const;
  std::int64_t outputs() const;

  // Throws InvalidInputError for batch sizes that increase or are below 1.
  void run(const RecurrentArgs& args, Workspace& workspace) const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace pyquant
