// Several requests as one run.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <vector>

#include "backend.h"
#include "job_queue.h"

namespace server {

// One worker's memory for gathering, kept from run to run.
class Batch {
 public:
  explicit Batch(const Backend& backend);

  // Runs the jobs together and returns the outputs of each. Throws what the model throws.
  std::vector<OutputData> run(Runner& runner, std::span<const Job> jobs);

 private:
  const Backend& backend_;
  std::vector<std::vector<std::byte>> inputs_, outputs_;
};

}  // namespace server
