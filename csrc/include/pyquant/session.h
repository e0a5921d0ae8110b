// A Session runs a Program: its memory plan, scratch and threads.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "pyquant/export.h"
#include "pyquant/program.h"
#include "pyquant/tensor.h"

namespace pyquant {

struct SessionOptions {
  // "auto" takes the fastest engine per operator; a name takes that engine wherever it can run the
  // operator and the core's engines elsewhere.
  std::string engine = "auto";
  // Threads inside one run, the caller included.
  int threads = 1;
  // Whether operators may be computed inside of the kernel before them, and tensors may be a part
  // of wider ones. Without it, a run is slower and gives the same numbers, and the Program's
  // weights are packed a second time.
  bool fuse = true;
};

// One step of a run: one node, or several that run as one. Nodes that move no bytes take no step.
struct StepProfile {
  std::vector<std::size_t> nodes;    // in Program::nodes()
  std::vector<Shape> output_shapes;  // of each of them
  double seconds = 0;
};

// Receives the value of a node, by its index in Program::nodes(): uint8 in NHWC, or float32. The
// view is good during the call only.
using ValueObserver = std::function<void(std::size_t node, const ConstTensorView& value)>;

// Used by one thread at a time, not always by the same; many Sessions over one Program may run in
// parallel. The weights are packed once per Program and engine, and shared. Of a moved-from Session
// nothing may be called but the destructor and the assignment.
class PYQUANT_API Session {
 public:
  // Throws UnsupportedError for an unknown engine, InvalidInputError for threads < 1 or no Program.
  explicit Session(std::shared_ptr<const Program> program, const SessionOptions& options = {});
  ~Session();
  Session(Session&&) noexcept;
  Session& operator=(Session&&) noexcept;

  // The output shapes for these input shapes. Plans for them if they are new: the first run of a
  // shape allocates, later runs do not. The result is good until the next call that plans. Throws
  // InvalidInputError.
  const std::vector<Shape>& output_shapes(std::span<const Shape> inputs);

  // Runs. inputs and outputs are dense and row-major, in the Program's order, with the dtypes of
  // Program::inputs() and outputs() and the shapes of output_shapes(). The caller owns them and
  // they must not overlap; nothing refers to them after the call. Throws InvalidInputError.
  void run(std::span<const ConstTensorView> inputs, std::span<const TensorView> outputs);

  // The same, with the time of each step, in the order in which they ran.
  std::vector<StepProfile> profile(std::span<const ConstTensorView> inputs,
                                   std::span<const TensorView> outputs);

  // The same as run, and hands every value to the observer once it is there: of each step, that of
  // its last node, unless that is a part of another value. In a Session that does not fuse, these
  // are all nodes of the Program.
  void observe(std::span<const ConstTensorView> inputs, std::span<const TensorView> outputs,
               const ValueObserver& observer);

  // The engine of each node, in Program::nodes() order.
  const std::vector<std::string>& node_engines() const;

  // Bytes of activations and scratch that the plans made so far need.
  std::size_t arena_bytes() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace pyquant
