#pragma once

#include <cstddef>
#include <vector>

#include "pyquant/workspace.h"
#include "runtime/aligned_buffer.h"
#include "runtime/thread_pool.h"

namespace pyquant {

class Workspace::Impl {
 public:
  explicit Impl(int threads) : pool(threads), own_(static_cast<std::size_t>(threads)) {}

  // At least `bytes` for all threads together, aligned to the cache line.
  std::byte* shared(std::size_t bytes) { return reserve(shared_, bytes); }
  // For one thread alone. Each may grow its own while the others run.
  std::byte* own(int thread, std::size_t bytes) {
    return reserve(own_[static_cast<std::size_t>(thread)], bytes);
  }

  ThreadPool pool;

 private:
  static std::byte* reserve(AlignedBuffer& buffer, std::size_t bytes) {
    buffer.reserve(bytes);
    return buffer.data();
  }

  AlignedBuffer shared_;
  std::vector<AlignedBuffer> own_;
};

// Cuts arrays, each aligned to the cache line, out of memory whose size is found first: the same
// calls are made twice, once from null.
class Carver {
 public:
  explicit Carver(std::byte* base) : base_(base) {}

  template <typename Element>
  Element* take(std::size_t count) {
    auto* taken = base_ == nullptr ? nullptr : reinterpret_cast<Element*>(base_ + used_);
    used_ += align_to_cache_line(count * sizeof(Element));
    return taken;
  }
  std::size_t used() const { return used_; }

 private:
  std::byte* base_;
  std::size_t used_ = 0;
};

}  // namespace pyquant
