// A Program: operators over tensors with their qparams and constants, read from a model.pyq.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "pyquant/export.h"
#include "pyquant/qparams.h"
#include "pyquant/tensor.h"

namespace pyquant {

struct TensorInfo {
  std::string name;
  DType dtype = DType::kFloat32;
  Shape shape;      // for the example input; the batch size and, where the operators allow it,
                    // height and width may differ at run time. float32 of rank 4 is NCHW.
  QParams qparams;  // of uint8 tensors
};

struct NodeInfo {
  std::string name;
  std::string kind;
};

// Immutable and safe to share between threads. Sessions keep it alive. What its functions return by
// reference lives as long as it does.
class PYQUANT_API Program {
 public:
  // Maps the file into memory and verifies all of it. The file must not be changed while the
  // Program lives. Throws IoError, or InvalidProgramError with the reason.
  static std::shared_ptr<const Program> load(const std::string& path);

  // The same from bytes, which are copied. Throws InvalidProgramError.
  static std::shared_ptr<const Program> from_bytes(std::span<const std::byte> bytes);

  const std::string& name() const;
  const std::vector<TensorInfo>& inputs() const;
  const std::vector<TensorInfo>& outputs() const;
  const std::vector<NodeInfo>& nodes() const;

  class Impl;
  const Impl& impl() const { return *impl_; }
  explicit Program(std::unique_ptr<Impl> impl);
  ~Program();

 private:
  std::unique_ptr<Impl> impl_;
};

}  // namespace pyquant
