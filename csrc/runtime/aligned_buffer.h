// Uninitialised memory aligned for any vector register and to the cache line.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <memory>
#include <new>

namespace pyquant {

class AlignedBuffer {
 public:
  static constexpr std::size_t kAlignment = 64;

  // Grows to at least `bytes`; the old contents are lost. Throws std::bad_alloc.
  void reserve(std::size_t bytes) {
    if (bytes <= size_) {
      return;
    }
    const std::size_t padded = (bytes + kAlignment - 1) / kAlignment * kAlignment;
    auto* memory = static_cast<std::byte*>(std::aligned_alloc(kAlignment, padded));
    if (memory == nullptr) {
      throw std::bad_alloc();
    }
    memory_.reset(memory);
    size_ = padded;
  }

  std::byte* data() const { return memory_.get(); }
  std::size_t size() const { return size_; }

 private:
  struct Free {
    void operator()(std::byte* memory) const { std::free(memory); }
  };
  std::unique_ptr<std::byte, Free> memory_;
  std::size_t size_ = 0;
};

}  // namespace pyquant
