#include "batch.h"

#include <cstring>
#include <utility>

namespace server {
namespace {

using pyquant::ConstTensorView;
using pyquant::TensorView;

std::int64_t images(std::span<const Job> jobs) {
  std::int64_t count = 0;
  for (const Job& job : jobs) {
    count += job.batch;
  }
  return count;
}

}  // namespace

Batch::Batch(const Backend& backend)
    : backend_(backend), inputs_(backend.inputs.size()), outputs_(backend.outputs.size()) {}

std::vector<OutputData> Batch::run(Runner& runner, std::span<const Job> jobs) {
  const std::int64_t batch = images(jobs);
  const bool alone = jobs.size() == 1;

  std::vector<ConstTensorView> inputs(jobs[0].inputs.begin(), jobs[0].inputs.end());
  for (std::size_t index = 0; index < inputs.size() && !alone; ++index) {
    std::vector<std::byte>& memory = inputs_[index];
    const TensorSpec& spec = backend_.inputs[index];
    const TensorView gathered = {spec.dtype, backend_.shape_of(spec, batch), nullptr};
    memory.resize(gathered.bytes());
    std::byte* next = memory.data();
    for (const Job& job : jobs) {
      std::memcpy(next, job.inputs[index].data, job.inputs[index].bytes());
      next += job.inputs[index].bytes();
    }
    inputs[index] = {gathered.dtype, gathered.shape, memory.data()};
  }

  std::vector<OutputData> results(jobs.size(), OutputData(backend_.outputs.size()));
  std::vector<std::vector<std::byte>>& memories = alone ? results[0] : outputs_;
  std::vector<TensorView> outputs;
  for (std::size_t index = 0; index < backend_.outputs.size(); ++index) {
    const TensorSpec& spec = backend_.outputs[index];
    TensorView& view = outputs.emplace_back(spec.dtype, backend_.shape_of(spec, batch), nullptr);
    memories[index].resize(view.bytes());
    view.data = memories[index].data();
  }
  runner.run(inputs, outputs);

  for (std::size_t index = 0; index < outputs.size() && !alone; ++index) {
    const std::size_t image = outputs[index].bytes() / static_cast<std::size_t>(batch);
    const std::byte* next = outputs_[index].data();
    for (std::size_t job = 0; job < jobs.size(); ++job) {
      const std::size_t bytes = image * static_cast<std::size_t>(jobs[job].batch);
      results[job][index].assign(next, next + bytes);
      next += bytes;
    }
  }
  return results;
}

}  // namespace server
