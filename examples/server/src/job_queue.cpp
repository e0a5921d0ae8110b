#include "job_queue.h"

#include <utility>

namespace server {

bool JobQueue::push(Job& job) {
  {
    const std::lock_guard lock(mutex_);
    if (closed_ || jobs_.size() == capacity_) {
      return false;
    }
    jobs_.push_back(std::move(job));
  }
  changed_.notify_one();
  return true;
}

std::vector<Job> JobQueue::pop(std::int64_t max_batch, std::chrono::microseconds max_delay) {
  std::vector<Job> taken;
  std::int64_t images = 0;
  const auto take = [&] {
    images += jobs_.front().batch;
    taken.push_back(std::move(jobs_.front()));
    jobs_.pop_front();
  };
  const auto something = [&] { return closed_ || !jobs_.empty(); };

  std::unique_lock lock(mutex_);
  changed_.wait(lock, something);
  if (jobs_.empty()) {
    return taken;
  }
  take();
  const auto deadline = taken[0].arrived + max_delay;
  while (images < max_batch) {
    if (jobs_.empty() && (closed_ || !changed_.wait_until(lock, deadline, something))) {
      break;
    }
    if (jobs_.empty() || images + jobs_.front().batch > max_batch) {
      break;
    }
    take();
  }
  return taken;
}

void JobQueue::close() {
  {
    const std::lock_guard lock(mutex_);
    closed_ = true;
  }
  changed_.notify_all();
}

std::size_t JobQueue::size() const {
  const std::lock_guard lock(mutex_);
  return jobs_.size();
}

}  // namespace server
