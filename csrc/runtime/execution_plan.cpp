#include "runtime/execution_plan.h"

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "runtime/memory_planner.h"
#include "runtime/ops/op_definition.h"
#include "runtime/thread_pool.h"

namespace pyquant {
namespace {

// What several threads must save at least. Work that is shared makes them exchange their halves of
// the tensors, too, at some bytes a nanosecond.
constexpr double kLeastShared = 15e3;  // nanoseconds

// Roughly what a node takes on one core, in nanoseconds.
double estimate(const ProgramNode& node, const Shape& output) {
  constexpr double kElements = 8, kMultiplyAdds = 400, kWeights = 20;  // a nanosecond
  const auto elements = static_cast<double>(output.elements());
  double time = elements / kElements;
  if (node.op.inputs.size() > 1 && node.op.inputs[1].constant.data != nullptr) {
    const Shape& weight = node.op.inputs[1].constant.shape;
    const auto weights = static_cast<double>(weight.elements());
    const double multiply_adds = elements * weights / static_cast<double>(weight[0]);
    time += std::max(multiply_adds / kMultiplyAdds, weights / kWeights);
  }
  return time;
}

}  // namespace

ExecutionPlan::ExecutionPlan(const Program::Impl& program, const PreparedProgram& prepared,
                             std::span<const Shape> inputs, int threads, bool join)
    : shapes_(infer_shapes(program, inputs)),
      placement_(place_tensors(program, prepared, shapes_, join)),
      locations_(program.tensors.size()) {
  for (const ProgramNode& node : program.nodes) {
    node_shapes_.push_back(shapes_[node.output]);
  }
  place_outputs(program);
  bind(program, threads);
  place_in_arena(program);
}

std::vector<Shape> ExecutionPlan::infer_shapes(const Program::Impl& program,
                                               std::span<const Shape> inputs) {
  std::vector<Shape> shapes;
  shapes.reserve(program.tensors.size());
  for (const ProgramTensor& tensor : program.tensors) {
    shapes.push_back(tensor.info.shape);  // right for constants; activations are overwritten
  }
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    shapes[program.inputs[i]] = inputs[i];
  }
  for (const ProgramNode& node : program.nodes) {
    std::vector<Shape> node_inputs;
    node_inputs.reserve(node.inputs.size());
    for (const std::size_t tensor : node.inputs) {
      node_inputs.push_back(shapes[tensor]);
    }
    shapes[node.output] = infer_output_shape(node.op, node_inputs);
  }
  return shapes;
}

StridedShape ExecutionPlan::strided_shape(std::size_t tensor) const {
  return {shapes_[tensor], placement_.tensors[tensor].pixel_stride};
}

ExecutionPlan::Location ExecutionPlan::location_of(const Program::Impl& program,
                                                   std::size_t tensor) const {
  const TensorPlace& place = placement_.tensors[tensor];
  Location location = locations_[place.root];
  location.offset +=
      static_cast<std::size_t>(place.offset) * size_of(program.tensors[place.root].info.dtype);
  return location;
}

void ExecutionPlan::place_outputs(const Program::Impl& program) {
  for (std::size_t i = 0; i < program.inputs.size(); ++i) {
    locations_[program.inputs[i]] = {Location::Kind::kInput, i};
  }
  for (std::size_t i = 0; i < program.outputs.size(); ++i) {
    output_shapes_.push_back(shapes_[program.outputs[i]]);
    Location& location = locations_[placement_.tensors[program.outputs[i]].root];
    if (location.kind == Location::Kind::kArena) {
      location = {Location::Kind::kOutput, i};
    } else {
      copies_.push_back({location, i});
    }
  }
}

void ExecutionPlan::bind(const Program::Impl& program, int threads) {
  for (const PreparedStep* prepared : placement_.steps) {
    Step step;
    std::vector<StridedShape> inputs;
    inputs.reserve(prepared->inputs.size());
    for (const std::size_t tensor : prepared->inputs) {
      inputs.push_back(strided_shape(tensor));
    }
    step.kernel = prepared->kernel->bind(inputs, strided_shape(prepared->output), threads);
    double time = 0;
    for (const std::size_t node : prepared->nodes) {
      time += estimate(program.nodes[node], shapes_[program.nodes[node].output]);
    }
    step.alone = time < kLeastShared;
    steps_.push_back(std::move(step));
  }
  std::span<const std::byte> next_weights;
  for (std::size_t i = steps_.size(); i-- != 0;) {
    steps_[i].kernel->fetch(next_weights);
    if (const auto weights = steps_[i].kernel->first_weights(); !weights.empty()) {
      next_weights = weights;
    }
  }
}

// The tensor that nobody reads after this step, and whose memory the step's output may take.
// last_reads: by root, the last step that reads it.
std::optional<std::size_t> ExecutionPlan::overwritten_by(
    std::size_t step, std::span<const std::size_t> last_reads) const {
  const std::optional<std::size_t> input = steps_[step].kernel->overwritable_input();
  if (!input) {
    return std::nullopt;
  }
  const std::vector<std::size_t>& inputs = placement_.steps[step]->inputs;
  const std::size_t root = root_of(inputs[*input]);
  const auto reads = std::ranges::count(inputs, root, [&](std::size_t i) { return root_of(i); });
  const bool dies = locations_[root].kind == Location::Kind::kArena && last_reads[root] == step;
  return dies && reads == 1 ? std::optional(root) : std::nullopt;
}

void ExecutionPlan::place_in_arena(const Program::Impl& program) {
  constexpr std::size_t kNowhere = SIZE_MAX;
  std::vector<Lifetime> lifetimes;
  std::vector<std::size_t> lifetime_of(program.tensors.size(), kNowhere);
  std::vector<std::size_t> scratch_of(steps_.size());
  std::vector<std::size_t> last_reads(program.tensors.size(), 0);
  for (std::size_t step = 0; step < steps_.size(); ++step) {
    for (const std::size_t tensor : placement_.steps[step]->inputs) {
      last_reads[root_of(tensor)] = step;
    }
  }
  const auto touch = [&](std::size_t tensor, std::size_t step,
                         std::optional<std::size_t> overwritten = std::nullopt) {
    const std::size_t root = root_of(tensor);
    if (locations_[root].kind != Location::Kind::kArena) {
      return;
    }
    if (overwritten) {
      lifetime_of[root] = lifetime_of[*overwritten];
    } else if (lifetime_of[root] == kNowhere) {
      lifetime_of[root] = lifetimes.size();
      lifetimes.push_back({static_cast<std::size_t>(shapes_[root].elements()) *
                               size_of(program.tensors[root].info.dtype),
                           step, step});
    }
    lifetimes[lifetime_of[root]].last = step;
  };
  for (std::size_t step = 0; step < steps_.size(); ++step) {
    for (const std::size_t tensor : placement_.steps[step]->inputs) {
      touch(tensor, step);
    }
    touch(placement_.steps[step]->output, step, overwritten_by(step, last_reads));
    scratch_of[step] = lifetimes.size();
    lifetimes.push_back({steps_[step].kernel->scratch_bytes(), step, step});
  }
  arena_bytes_ = plan_memory(lifetimes);

  for (std::size_t tensor = 0; tensor < lifetime_of.size(); ++tensor) {
    if (lifetime_of[tensor] != kNowhere) {
      locations_[tensor].offset = lifetimes[lifetime_of[tensor]].offset;
    }
  }
  for (std::size_t i = 0; i < steps_.size(); ++i) {
    Step& step = steps_[i];
    for (const std::size_t tensor : placement_.steps[i]->inputs) {
      step.inputs.push_back(location_of(program, tensor));
    }
    step.input_pointers.resize(step.inputs.size());
    step.output = location_of(program, placement_.steps[i]->output);
    step.scratch_offset = lifetimes[scratch_of[i]].offset;
  }
}

StepProfile ExecutionPlan::describe(std::size_t step) const {
  StepProfile profile;
  profile.nodes = placement_.steps[step]->nodes;
  for (const std::size_t node : profile.nodes) {
    profile.output_shapes.push_back(node_shapes_[node]);
  }
  return profile;
}

std::vector<ExecutionPlan::NodeValue> ExecutionPlan::values(const Program::Impl& program,
                                                            std::size_t step) const {
  const std::size_t output = placement_.steps[step]->output;
  return root_of(output) == output ? values_at(program, output) : std::vector<NodeValue>();
}

std::vector<ExecutionPlan::NodeValue> ExecutionPlan::input_views(const Program::Impl& program,
                                                                 std::size_t input) const {
  return values_at(program, program.inputs[input]);
}

std::vector<ExecutionPlan::NodeValue> ExecutionPlan::values_at(const Program::Impl& program,
                                                               std::size_t root) const {
  std::vector<NodeValue> values;
  for (std::size_t node = 0; node < program.nodes.size(); ++node) {
    const std::size_t tensor = program.nodes[node].output;
    const TensorPlace& place = placement_.tensors[tensor];
    if (place.root == root && place.pixel_stride == StridedShape(shapes_[tensor]).pixel_stride) {
      values.push_back({node, program.tensors[tensor].info.dtype, shapes_[tensor],
                        location_of(program, tensor).offset - locations_[root].offset});
    }
  }
  return values;
}

void ExecutionPlan::run(std::span<const ConstTensorView> inputs,
                        std::span<const TensorView> outputs, std::byte* arena, ThreadPool& pool,
                        const AfterStep* after_step) {
  const auto readable = [&](const Location& location) {
    const std::byte* memory = arena;
    if (location.kind == Location::Kind::kInput) {
      memory = static_cast<const std::byte*>(inputs[location.index].data);
    } else if (location.kind == Location::Kind::kOutput) {
      memory = static_cast<const std::byte*>(outputs[location.index].data);
    }
    return memory + location.offset;
  };
  for (std::size_t number = 0; number < steps_.size(); ++number) {
    Step& step = steps_[number];
    for (std::size_t i = 0; i < step.inputs.size(); ++i) {
      step.input_pointers[i] = readable(step.inputs[i]);
    }
    std::byte* output =
        step.output.offset + (step.output.kind == Location::Kind::kOutput
                                  ? static_cast<std::byte*>(outputs[step.output.index].data)
                                  : arena);
    pool.set_alone(step.alone);
    step.kernel->run({step.input_pointers, output, arena + step.scratch_offset, &pool});
    if (after_step != nullptr) {
      (*after_step)(number, output);
    }
  }
  for (const Copy& copy : copies_) {
    std::memcpy(outputs[copy.output].data, readable(copy.from), outputs[copy.output].bytes());
  }
}

}  // namespace pyquant
