// One operator by itself, without a Program: prepared once, run many times.
#pragma once

#include <memory>
#include <span>
#include <string>

#include "pyquant/export.h"
#include "pyquant/operator.h"
#include "pyquant/tensor.h"

namespace pyquant {

// Used by one thread at a time; different Kernels may run in parallel. Owns its packed constants,
// scratch and threads. Of a moved-from Kernel nothing may be called but the destructor and the
// assignment.
class PYQUANT_API Kernel {
 public:
  // Packs the operator's constants; nothing of `op` is referred to afterwards. A named engine must
  // support the operator. Throws InvalidProgramError for an inconsistent operator,
  // UnsupportedError with the reason where the engine cannot run it.
  explicit Kernel(const Operator& op, const std::string& engine = "auto", int threads = 1);
  ~Kernel();
  Kernel(Kernel&&) noexcept;
  Kernel& operator=(Kernel&&) noexcept;

  const std::string& engine() const;

  // inputs: shapes of the activation inputs. Throws InvalidInputError.
  Shape output_shape(std::span<const Shape> inputs) const;

  // Dense row-major tensors with the operator's dtypes, which the caller owns and which must not
  // overlap. The first run of a shape allocates.
  // Throws InvalidInputError.
  void run(std::span<const ConstTensorView> inputs, const TensorView& output);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace pyquant
