// The inside of a Program: tensors, nodes, and the kernels prepared for each engine.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "engines/engine.h"
#include "pyquant/operator.h"
#include "pyquant/program.h"

namespace pyquant {

struct ProgramTensor {
  TensorInfo info;
  Operand operand;
};

struct ProgramNode {
  Operator op;
  std::vector<std::size_t> inputs;  // tensor indices, constants included
  std::size_t output = 0;
};

// One or more nodes that are computed together, prepared on an engine.
struct PreparedStep {
  std::vector<std::size_t> nodes;   // the first and its post-ops
  std::vector<std::size_t> inputs;  // tensors: those of RunArgs::inputs
  std::size_t output = 0;           // tensor
  std::unique_ptr<PreparedKernel> kernel;
};

// A Program prepared on an engine. Immutable.
struct PreparedProgram {
  std::vector<PreparedStep> steps;   // in execution order
  std::vector<std::string> engines;  // by node: the name of the engine that computes it
};

class [[gnu::visibility("hidden")]] Program::Impl {
 public:
  std::string name;
  std::vector<ProgramTensor> tensors;
  std::vector<ProgramNode> nodes;
  std::vector<std::size_t> inputs;
  std::vector<std::size_t> outputs;

  std::vector<TensorInfo> input_infos;
  std::vector<TensorInfo> output_infos;
  std::vector<NodeInfo> node_infos;

  // Keeps the bytes that constants point into.
  std::shared_ptr<const void> storage;

  // Prepares at the first call for an engine, with or without fused nodes; later calls share the
  // result. Thread-safe.
  std::shared_ptr<const PreparedProgram> prepared(const std::string& engine, bool fuse) const;

 private:
  mutable std::mutex mutex_;
  mutable std::map<std::pair<std::string, bool>, std::shared_ptr<const PreparedProgram>> prepared_;
};

}  // namespace pyquant
