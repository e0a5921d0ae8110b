// A Program bound to input shapes: every kernel bound, every tensor placed.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "engines/engine.h"
#include "pyquant/session.h"
#include "runtime/program_impl.h"
#include "runtime/tensor_places.h"

namespace pyquant {

class ExecutionPlan {
 public:
  // Throws InvalidInputError where the shapes do not fit the Program. `prepared` outlives the plan.
  // join: as of place_tensors.
  ExecutionPlan(const Program::Impl& program, const PreparedProgram& prepared,
                std::span<const Shape> inputs, int threads, bool join);

  std::size_t arena_bytes() const { return arena_bytes_; }
  const std::vector<Shape>& output_shapes() const { return output_shapes_; }

  // Called after a step, with the bytes of its output.
  using AfterStep = std::function<void(std::size_t step, const void* output)>;

  // arena: arena_bytes() bytes, aligned to kArenaAlignment. Allocates nothing.
  void run(std::span<const ConstTensorView> inputs, std::span<const TensorView> outputs,
           std::byte* arena, ThreadPool& pool, const AfterStep* after_step = nullptr);

  // What a step does; without its time.
  StepProfile describe(std::size_t step) const;

  // A node whose value has the bytes of something else: a step's output, or a Program input.
  struct NodeValue {
    std::size_t node;
    DType dtype;
    Shape shape;
    std::size_t offset;  // in bytes
  };
  // The last node of a step, and the views of its value; none, where that is a part of another.
  std::vector<NodeValue> values(const Program::Impl& program, std::size_t step) const;
  // The views of a Program input.
  std::vector<NodeValue> input_views(const Program::Impl& program, std::size_t input) const;

 private:
  // Where a tensor's bytes are during a run.
  struct Location {
    enum class Kind { kArena, kInput, kOutput } kind = Kind::kArena;
    std::size_t index = 0;   // of the input or output
    std::size_t offset = 0;  // in the arena, input or output, in bytes
  };
  struct Step {
    std::unique_ptr<BoundKernel> kernel;
    std::vector<Location> inputs;
    Location output;
    std::size_t scratch_offset = 0;
    bool alone = false;                       // on the calling thread only
    std::vector<const void*> input_pointers;  // filled at each run
  };
  // An output that had to be computed somewhere else (it is an input, or another output).
  struct Copy {
    Location from;
    std::size_t output;
  };

  std::vector<Shape> infer_shapes(const Program::Impl& program, std::span<const Shape> inputs);
  std::vector<NodeValue> values_at(const Program::Impl& program, std::size_t root) const;
  void place_outputs(const Program::Impl& program);
  void bind(const Program::Impl& program, int threads);
  std::optional<std::size_t> overwritten_by(std::size_t step,
                                            std::span<const std::size_t> last_reads) const;
  void place_in_arena(const Program::Impl& program);
  StridedShape strided_shape(std::size_t tensor) const;
  std::size_t root_of(std::size_t tensor) const { return placement_.tensors[tensor].root; }
  Location location_of(const Program::Impl& program, std::size_t tensor) const;

  std::vector<Shape> shapes_;  // by tensor
  Placement placement_;
  std::vector<Location> locations_;  // by tensor; of roots only
  std::vector<Shape> node_shapes_;   // by node: its output's
  std::vector<Step> steps_;
  std::vector<Copy> copies_;
  std::vector<Shape> output_shapes_;
  std::size_t arena_bytes_ = 0;
};

}  // namespace pyquant
