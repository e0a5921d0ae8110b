// A fixed set of worker threads that run one task at a time, together with the caller.
#pragma once

#include <atomic>
#include <cstdint>
#include <thread>
#include <type_traits>
#include <vector>

#include "pyquant/export.h"
#include "runtime/aligned_buffer.h"

namespace pyquant {

// A borrowed callable `void(int thread)`; like std::function without allocation. The callable must
// outlive the call it is passed to.
class ThreadTask {
 public:
  template <typename Callable>
    requires(!std::is_same_v<std::remove_cvref_t<Callable>, ThreadTask>)
  ThreadTask(const Callable& callable)  // NOLINT(google-explicit-constructor)
      : object_(&callable), invoke_([](const void* object, int thread) {
          (*static_cast<const Callable*>(object))(thread);
        }) {}

  void operator()(int thread) const { invoke_(object_, thread); }

 private:
  const void* object_;
  void (*invoke_)(const void*, int);
};

// Owned by one Session; `run` is called by one thread at a time. Workers spin briefly between
// tasks, then sleep.
class ThreadPool {
 public:
  // threads: 1..kMaxThreads; one of them is the caller, so a pool of one starts no thread. Throws
  // InvalidInputError for other numbers, UnsupportedError where the system gives no more threads.
  static constexpr int kMaxThreads = 1024;
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const { return static_cast<int>(workers_.size()) + 1; }

  // Calls task(0) … task(size() - 1), each on its own thread (0 is the caller), and returns when
  // all are done. The task must not throw.
  PYQUANT_ENGINE_API void run(ThreadTask task);

  // While set, `run` calls all of task(0) … task(size() - 1) on the caller, one after the other:
  // for work that takes less time than waking the others and fetching what they have computed.
  void set_alone(bool alone) { alone_ = alone; }

 private:
  void work(int thread);
  void stop();

  std::vector<std::thread> workers_;
  bool alone_ = false;
  const ThreadTask* task_ = nullptr;
  // Threads wait for one of these while another writes the other: a cache line each.
  alignas(kCacheLine) std::atomic<std::uint32_t> generation_{0};
  alignas(kCacheLine) std::atomic<int> pending_{0};
  std::atomic<bool> stopping_{false};
};

// A half-open range of items.
struct Range {
  std::int64_t begin, end;
};

// The share of `count` items that `thread` of `threads` does.
inline Range slice_of(std::int64_t count, int thread, int threads) {
  return {count * thread / threads, count * (thread + 1) / threads};
}

}  // namespace pyquant
