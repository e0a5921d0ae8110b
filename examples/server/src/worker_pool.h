// Threads that compute: each has one Runner over the shared model.
#pragma once

#include <chrono>
#include <memory>
#include <thread>
#include <vector>

#include "backend.h"
#include "config.h"
#include "job_queue.h"
#include "metrics.h"

namespace server {

class WorkerPool {
 public:
  // Every worker has run once before this returns, so that no client waits for packed weights and
  // memory plans. Throws what the model throws.
  WorkerPool(const Backend& backend, const Config& config, Metrics& metrics);

  ~WorkerPool() { finish(); }

  // Computes what is in the queue, and ends: no job's memory is used any more.
  void finish();

  // False if too many wait already.
  bool push(Job& job);

 private:
  void work(Runner& runner);
  void observe(const std::vector<Job>& jobs, std::chrono::steady_clock::time_point start);

  const Backend& backend_;
  const Config& config_;
  Metrics& metrics_;
  JobQueue queue_;
  std::vector<std::unique_ptr<Runner>> runners_;
  std::vector<std::jthread> threads_;
};

}  // namespace server
