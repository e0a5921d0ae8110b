// Requests between the threads that read them and the workers that compute them.
#pragma once

#include <pyquant/tensor.h>

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <mutex>
#include <span>
#include <vector>

#include "infer_response.h"

namespace server {

struct Job {
  std::span<const pyquant::ConstTensorView> inputs;  // valid until `done` is called
  std::int64_t batch = 1;
  std::function<void(std::exception_ptr, OutputData)> done{};
  std::chrono::steady_clock::time_point arrived{};
};

// Used by any thread.
class JobQueue {
 public:
  explicit JobQueue(std::size_t capacity) : capacity_(capacity) {}

  // False if the queue is full or closed; the job is then untouched.
  bool push(Job& job);

  // Waits for jobs and takes the first, and those behind it as long as they have no more than
  // max_batch images together. The first waits for others for max_delay at most. Empty once the
  // queue is closed and empty.
  std::vector<Job> pop(std::int64_t max_batch, std::chrono::microseconds max_delay);

  void close();
  std::size_t size() const;

 private:
  const std::size_t capacity_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Job> jobs_;
  bool closed_ = false;
};

}  // namespace server
