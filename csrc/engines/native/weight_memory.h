// Memory for packed weights.
#pragma once

#include <cstddef>
#include <memory>

namespace pyquant::native {

// Zeroed, aligned to the cache line. What is allocated in turn lies together, in huge pages where
// the system has them: a network's weights are read from end to end at every run, and with pages of
// 4 KiB the walks of the page tables cost as much as the reading. Thread-safe.
class WeightMemory {
 public:
  WeightMemory() = default;
  // Throws std::bad_alloc.
  explicit WeightMemory(std::size_t bytes);

  std::byte* data() const { return memory_.get(); }
  std::size_t size() const { return size_; }

 private:
  std::shared_ptr<std::byte> memory_;
  std::size_t size_ = 0;
};

}  // namespace pyquant::native
