#include "pyquant/session.h"

#include <algorithm>
#include <chrono>
#include <map>

#include "runtime/aligned_buffer.h"
#include "runtime/execution_plan.h"
#include "runtime/program_impl.h"
#include "runtime/thread_pool.h"

namespace pyquant {
namespace {

// Plans kept at once; a server that sees more shapes than this plans again now and then.
constexpr std::size_t kMaxPlans = 16;

void check_tensor(const char* role, const TensorInfo& expected, DType dtype, const void* data) {
  if (dtype != expected.dtype) {
    throw InvalidInputError(std::string("the ") + role + " '" + expected.name + "' is " +
                            to_string(dtype) + "; it must be " + to_string(expected.dtype));
  }
  if (data == nullptr) {
    throw InvalidInputError(std::string("the ") + role + " '" + expected.name + "' has no data");
  }
}

void check_count(const char* role, std::size_t given, std::size_t expected) {
  if (given != expected) {
    throw InvalidInputError("the Program has " + std::to_string(expected) + " " + role + ", not " +
                            std::to_string(given));
  }
}

}  // namespace

class Session::Impl {
 public:
  Impl(std::shared_ptr<const Program> program, const SessionOptions& options)
      : program_(std::move(program)),
        prepared_(program_->impl().prepared(options.engine, options.fuse)),
        pool_(options.threads),
        join_(options.fuse) {}

  ExecutionPlan& plan_for(std::span<const Shape> inputs) {
    const Program::Impl& program = program_->impl();
    check_count("inputs", inputs.size(), program.inputs.size());
    if (current_ != nullptr && std::ranges::equal(inputs, current_shapes_)) {
      return *current_;
    }
    std::vector<Shape> key(inputs.begin(), inputs.end());
    auto found = plans_.find(key);
    if (found == plans_.end()) {
      for (std::size_t i = 0; i < inputs.size(); ++i) {
        const TensorInfo& expected = program.input_infos[i];
        if (inputs[i].rank() != expected.shape.rank()) {
          throw InvalidInputError("the input '" + expected.name + "' has shape " +
                                  inputs[i].to_string() + "; it must have " +
                                  std::to_string(expected.shape.rank()) +
                                  " dimensions like the example " + expected.shape.to_string());
        }
      }
      ExecutionPlan plan(program, *prepared_, inputs, pool_.size(), join_);
      arena_.reserve(plan.arena_bytes());
      if (plans_.size() >= kMaxPlans) {
        current_ = nullptr;
        plans_.clear();
      }
      found = plans_.emplace(key, std::move(plan)).first;
    }
    current_ = &found->second;
    current_shapes_ = std::move(key);
    return *current_;
  }

  // The plan for the inputs, after everything was checked.
  ExecutionPlan& checked_plan(std::span<const ConstTensorView> inputs,
                              std::span<const TensorView> outputs) {
    const Program::Impl& program = program_->impl();
    check_count("inputs", inputs.size(), program.inputs.size());
    check_count("outputs", outputs.size(), program.outputs.size());
    input_shapes_.clear();
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      check_tensor("input", program.input_infos[i], inputs[i].dtype, inputs[i].data);
      input_shapes_.push_back(inputs[i].shape);
    }
    ExecutionPlan& plan = plan_for(input_shapes_);
    for (std::size_t i = 0; i < outputs.size(); ++i) {
      check_tensor("output", program.output_infos[i], outputs[i].dtype, outputs[i].data);
      if (!(outputs[i].shape == plan.output_shapes()[i])) {
        throw InvalidInputError("the output '" + program.output_infos[i].name + "' has shape " +
                                outputs[i].shape.to_string() + "; it must be " +
                                plan.output_shapes()[i].to_string());
      }
    }
    return plan;
  }

  void run(std::span<const ConstTensorView> inputs, std::span<const TensorView> outputs) {
    checked_plan(inputs, outputs).run(inputs, outputs, arena_.data(), pool_);
  }

  std::vector<StepProfile> profile(std::span<const ConstTensorView> inputs,
                                   std::span<const TensorView> outputs) {
    using Clock = std::chrono::steady_clock;
    ExecutionPlan& plan = checked_plan(inputs, outputs);
    std::vector<Clock::time_point> ends;
    const ExecutionPlan::AfterStep take_time = [&](std::size_t, const void*) {
      ends.push_back(Clock::now());
    };
    Clock::time_point previous = Clock::now();
    plan.run(inputs, outputs, arena_.data(), pool_, &take_time);
    std::vector<StepProfile> steps;
    for (std::size_t step = 0; step < ends.size(); ++step) {
      StepProfile& profile = steps.emplace_back(plan.describe(step));
      profile.seconds = std::chrono::duration<double>(ends[step] - previous).count();
      previous = ends[step];
    }
    return steps;
  }

  void observe(std::span<const ConstTensorView> inputs, std::span<const TensorView> outputs,
               const ValueObserver& observer) {
    const Program::Impl& program = program_->impl();
    ExecutionPlan& plan = checked_plan(inputs, outputs);
    const auto hand_out = [&](const std::vector<ExecutionPlan::NodeValue>& values,
                              const void* data) {
      for (const ExecutionPlan::NodeValue& value : values) {
        observer(value.node,
                 {value.dtype, value.shape, static_cast<const std::byte*>(data) + value.offset});
      }
    };
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      hand_out(plan.input_views(program, i), inputs[i].data);
    }
    const ExecutionPlan::AfterStep after_step = [&](std::size_t step, const void* output) {
      hand_out(plan.values(program, step), output);
    };
    plan.run(inputs, outputs, arena_.data(), pool_, &after_step);
  }

  const PreparedProgram& prepared() const { return *prepared_; }
  std::size_t arena_bytes() const { return arena_.size(); }

 private:
  std::shared_ptr<const Program> program_;
  std::shared_ptr<const PreparedProgram> prepared_;
  ThreadPool pool_;
  bool join_;
  std::map<std::vector<Shape>, ExecutionPlan> plans_;
  ExecutionPlan* current_ = nullptr;  // the plan of the last run
  std::vector<Shape> current_shapes_;
  std::vector<Shape> input_shapes_;  // of the run under way
  AlignedBuffer arena_;
};

Session::Session(std::shared_ptr<const Program> program, const SessionOptions& options) {
  if (program == nullptr) {
    throw InvalidInputError("a Session needs a Program");
  }
  impl_ = std::make_unique<Impl>(std::move(program), options);
}

Session::~Session() = default;
Session::Session(Session&&) noexcept = default;
Session& Session::operator=(Session&&) noexcept = default;

const std::vector<Shape>& Session::output_shapes(std::span<const Shape> inputs) {
  return impl_->plan_for(inputs).output_shapes();
}

void Session::run(std::span<const ConstTensorView> inputs, std::span<const TensorView> outputs) {
  impl_->run(inputs, outputs);
}

std::vector<StepProfile> Session::profile(std::span<const ConstTensorView> inputs,
                                          std::span<const TensorView> outputs) {
  return impl_->profile(inputs, outputs);
}

void Session::observe(std::span<const ConstTensorView> inputs, std::span<const TensorView> outputs,
                      const ValueObserver& observer) {
  impl_->observe(inputs, outputs, observer);
}

const std::vector<std::string>& Session::node_engines() const { return impl_->prepared().engines; }
std::size_t Session::arena_bytes() const { return impl_->arena_bytes(); }

}  // namespace pyquant
