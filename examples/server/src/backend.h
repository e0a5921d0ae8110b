// What computes: pyquant, or for comparisons another runtime behind the same server.
#pragma once

#include <pyquant/tensor.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace server {

struct TensorSpec {
  std::string name;
  pyquant::DType dtype;
  pyquant::Shape shape;  // the first dimension is the batch, where the model takes batches
};

// One worker's part: used by one thread at a time.
class Runner {
 public:
  virtual ~Runner() = default;

  // Dense, row-major tensors in the order of the model's inputs and outputs, all of one batch size.
  virtual void run(std::span<const pyquant::ConstTensorView> inputs,
                   std::span<const pyquant::TensorView> outputs) = 0;
};

// A loaded model: immutable, shared by all threads.
class Backend {
 public:
  virtual ~Backend() = default;

  virtual std::unique_ptr<Runner> make_runner(int threads) const = 0;

  // The shape of an input or output for so many images; its own, if the model takes no batches.
  pyquant::Shape shape_of(const TensorSpec& spec, std::int64_t batch) const;

  std::string platform;  // for the model's metadata
  std::string model_name;
  std::vector<TensorSpec> inputs, outputs;
  bool takes_batches = false;  // whether the first dimension may differ
};

// By the ending of the file's name. Throws std::runtime_error or what the runtime throws.
std::unique_ptr<Backend> load_backend(const std::filesystem::path& file);

}  // namespace server
