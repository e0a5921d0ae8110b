#include "pyquant/kernel.h"

#include <algorithm>
#include <vector>

#include "engines/engine.h"
#include "runtime/aligned_buffer.h"
#include "runtime/thread_pool.h"

namespace pyquant {

class Kernel::Impl {
 public:
  Impl(const Operator& op, const std::string& engine, int threads)
      : op_((check_operator(op), op)), pool_(threads) {
    const Engine& chosen = select_engine(engine, op, /*fallback=*/false);
    engine_ = chosen.name();
    prepared_ = chosen.prepare(op, {});
    for (Operand& input : op_.inputs) {
      input.constant.data = nullptr;  // the caller's; the engine has copied it
      input.channel_scales = nullptr;
    }
  }

  const std::string& engine() const { return engine_; }

  Shape output_shape(std::span<const Shape> inputs) const {
    std::vector<Shape> shapes;
    std::size_t activation = 0;
    for (const Operand& input : op_.inputs) {
      if (input.constant.shape.rank() != 0) {
        shapes.push_back(input.constant.shape);
      } else if (activation < inputs.size()) {
        shapes.push_back(inputs[activation++]);
      }
    }
    if (activation != inputs.size()) {
      throw InvalidInputError("too many inputs");
    }
    return infer_output_shape(op_, shapes);
  }

  void run(std::span<const ConstTensorView> inputs, const TensorView& output) {
    std::vector<Shape> shapes;
    for (const ConstTensorView& input : inputs) {
      shapes.push_back(input.shape);
    }
    if (bound_ == nullptr || shapes != shapes_) {
      output_ = output_shape(shapes);
      check_inputs(inputs);
      const std::vector<StridedShape> dense(shapes.begin(), shapes.end());
      bound_ = prepared_->bind(dense, StridedShape(output_), pool_.size());
      scratch_.reserve(bound_->scratch_bytes());
      shapes_ = shapes;
    }
    check_inputs(inputs);
    if (output.data == nullptr) {
      throw InvalidInputError("the output has no data");
    }
    if (output.dtype != op_.output.dtype || !(output.shape == output_)) {
      throw InvalidInputError("the output must be " + std::string(to_string(op_.output.dtype)) +
                              " " + output_.to_string());
    }
    std::vector<const void*> pointers;
    for (const ConstTensorView& input : inputs) {
      pointers.push_back(input.data);
    }
    bound_->run({pointers, output.data, scratch_.data(), &pool_});
  }

 private:
  void check_inputs(std::span<const ConstTensorView> inputs) const {
    std::size_t activation = 0;
    for (const Operand& operand : op_.inputs) {
      if (operand.constant.shape.rank() != 0) {
        continue;
      }
      const ConstTensorView& input = inputs[activation++];
      if (input.dtype != operand.dtype) {
        throw InvalidInputError("an input is " + std::string(to_string(input.dtype)) +
                                "; it must be " + to_string(operand.dtype));
      }
      if (input.data == nullptr) {
        throw InvalidInputError("an input has no data");
      }
    }
  }

  Operator op_;
  std::string engine_;
  std::unique_ptr<PreparedKernel> prepared_;
  ThreadPool pool_;
  std::unique_ptr<BoundKernel> bound_;
  std::vector<Shape> shapes_;
  Shape output_;
  AlignedBuffer scratch_;
};

Kernel::Kernel(const Operator& op, const std::string& engine, int threads) {
  impl_ = std::make_unique<Impl>(op, engine, threads);
}

Kernel::~Kernel() = default;
Kernel::Kernel(Kernel&&) noexcept = default;
Kernel& Kernel::operator=(Kernel&&) noexcept = default;

const std::string& Kernel::engine() const { return impl_->engine(); }

Shape Kernel::output_shape(std::span<const Shape> inputs) const {
  return impl_->output_shape(inputs);
}

void Kernel::run(std::span<const ConstTensorView> inputs, const TensorView& output) {
  impl_->run(inputs, output);
}

}  // namespace pyquant
