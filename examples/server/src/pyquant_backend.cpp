#include "pyquant_backend.h"

#include <pyquant/error.h>
#include <pyquant/program.h>
#include <pyquant/session.h>

#include <utility>

namespace server {
namespace {

class PyquantRunner : public Runner {
 public:
  PyquantRunner(std::shared_ptr<const pyquant::Program> program, int threads)
      : session_(std::move(program), {.threads = threads}) {}

  void run(std::span<const pyquant::ConstTensorView> inputs,
           std::span<const pyquant::TensorView> outputs) override {
    session_.run(inputs, outputs);
  }

 private:
  pyquant::Session session_;
};

std::vector<TensorSpec> specs(const std::vector<pyquant::TensorInfo>& tensors) {
  std::vector<TensorSpec> result;
  for (const pyquant::TensorInfo& tensor : tensors) {
    result.push_back({tensor.name, tensor.dtype, tensor.shape});
  }
  return result;
}

class PyquantBackend : public Backend {
 public:
  explicit PyquantBackend(const std::filesystem::path& file)
      : program_(pyquant::Program::load(file.string())) {
    platform = "pyquant";
    model_name = program_->name();
    inputs = specs(program_->inputs());
    outputs = specs(program_->outputs());
    takes_batches = plans_for(2) && plans_for(3);
  }

  std::unique_ptr<Runner> make_runner(int threads) const override {
    return std::make_unique<PyquantRunner>(program_, threads);
  }

 private:
  // Whether inputs of that batch size are accepted and give outputs of it.
  bool plans_for(std::int64_t batch) const {
    const auto with_batch = [&](const std::vector<TensorSpec>& tensors) {
      std::vector<pyquant::Shape> shapes;
      for (const TensorSpec& tensor : tensors) {
        pyquant::Shape& shape = shapes.emplace_back(tensor.shape);
        if (shape.rank() > 0) {
          shape[0] = batch;
        }
      }
      return shapes;
    };
    try {
      pyquant::Session session(program_);
      return session.output_shapes(with_batch(inputs)) == with_batch(outputs);
    } catch (const pyquant::InvalidInputError&) {
      return false;
    }
  }

  std::shared_ptr<const pyquant::Program> program_;
};

}  // namespace

std::unique_ptr<Backend> load_pyquant(const std::filesystem::path& file) {
  return std::make_unique<PyquantBackend>(file);
}

}  // namespace server
