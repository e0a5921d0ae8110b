#include "worker_pool.h"

#include <utility>

#include "batch.h"

namespace server {
namespace {

using std::chrono::steady_clock;

// One image of zeros.
void warm_up(const Backend& backend, Runner& runner) {
  std::vector<std::vector<std::byte>> zeros;
  std::vector<pyquant::ConstTensorView> inputs;
  for (const TensorSpec& spec : backend.inputs) {
    pyquant::ConstTensorView& view = inputs.emplace_back(spec.dtype, spec.shape, nullptr);
    view.data = zeros.emplace_back(view.bytes()).data();
  }
  const Job job = {.inputs = inputs, .batch = backend.inputs.at(0).shape[0]};
  Batch(backend).run(runner, {&job, 1});
}

}  // namespace

WorkerPool::WorkerPool(const Backend& backend, const Config& config, Metrics& metrics)
    : backend_(backend), config_(config), metrics_(metrics), queue_(config.max_queue) {
  for (std::size_t index = 0; index < config.workers; ++index) {
    Runner& runner = *runners_.emplace_back(backend.make_runner(config.threads));
    warm_up(backend, runner);
  }
  try {
    for (const std::unique_ptr<Runner>& runner : runners_) {
      threads_.emplace_back([this, &runner] { work(*runner); });
    }
  } catch (...) {
    finish();  // those that were started wait for jobs
    throw;
  }
}

void WorkerPool::finish() {
  queue_.close();
  threads_.clear();  // joins
}

bool WorkerPool::push(Job& job) {
  const bool pushed = queue_.push(job);
  metrics_.queued = static_cast<std::int64_t>(queue_.size());
  return pushed;
}

void WorkerPool::observe(const std::vector<Job>& jobs, steady_clock::time_point start) {
  metrics_.run_seconds.observe(steady_clock::now() - start);
  std::int64_t images = 0;
  for (const Job& job : jobs) {
    images += job.batch;
    metrics_.queue_seconds.observe(start - job.arrived);
  }
  metrics_.images += static_cast<std::uint64_t>(images);
  metrics_.run_images.observe(static_cast<double>(images));
}

void WorkerPool::work(Runner& runner) {
  const std::int64_t max_batch = backend_.takes_batches ? config_.max_batch : 1;
  Batch batch(backend_);
  while (true) {
    const std::vector<Job> jobs = queue_.pop(max_batch, config_.max_delay);
    if (jobs.empty()) {
      return;
    }
    metrics_.queued = static_cast<std::int64_t>(queue_.size());
    const auto start = steady_clock::now();
    std::vector<OutputData> results(jobs.size());
    std::exception_ptr error;
    try {
      results = batch.run(runner, jobs);
    } catch (...) {
      error = std::current_exception();
    }
    observe(jobs, start);
    for (std::size_t index = 0; index < jobs.size(); ++index) {
      jobs[index].done(error, std::move(results[index]));
    }
  }
}

}  // namespace server
