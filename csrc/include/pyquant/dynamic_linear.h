// A linear layer with int8 weights for float32 activations, which are quantized as they come, every
// row with qparams of its own: a result does not depend on what else is in the batch.
//
//   s = max(max(x) / 255 - min(x) / 255, 2^-100)   of the row and 0
//   z = rne(-min(x) / s),  q = clamp(rne(x / s) + z, 0, 255)
//   y[o] = float(sum_i (q[i] - z) * weight[o, i]) * (s * scale[o]) + bias[o]
//
// The sum is exact, and all instruction sets give the same bits. A row of zeros gives the bias, to
// the bit; a row with NaN or infinity gives NaN.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "pyquant/export.h"
#include "pyquant/workspace.h"

namespace pyquant {

// Weights of a linear layer, borrowed: weight[o, i] = values[o * inputs + i] * scales[o].
struct Int8Weights {
  std::int64_t outputs = 0, inputs = 0;
  std::span<const std::int8_t> values;  // [outputs, inputs]
  std::span<const float> scales;        // [outputs]
  std::span<const float> bias;          // [outputs], or empty for none
};

// Immutable; shared by all threads, each with a Workspace of its own.
class PYQUANT_API DynamicLinear {
 public:
  // The sums of more inputs could leave int32.
  static constexpr std::int64_t kMaxInputs = 65536;

  // Packs the weights for this CPU. Throws InvalidInputError where sizes do not fit or there are no
  // inputs or outputs, UnsupportedError for more than kMaxInputs.
  explicit DynamicLinear(const Int8Weights& weights);
  ~DynamicLinear();
  DynamicLinear(DynamicLinear&&) noexcept;
  DynamicLinear& operator=(DynamicLinear&&) noexcept;

  std::int64_t inputs() const;
  std::int64_t outputs() const;

  // x: [rows, inputs]; y: [rows, outputs], not overlapping x; both dense and row-major.
  void run(const float* x, std::int64_t rows, float* y, Workspace& workspace) const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace pyquant
