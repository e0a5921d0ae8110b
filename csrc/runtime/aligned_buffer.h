// Memory of zeros, aligned for any vector register and to the cache line.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace pyquant {

inline constexpr std::size_t kCacheLine = 64;

constexpr std::size_t align_to_cache_line(std::size_t bytes) {
  return (bytes + kCacheLine - 1) / kCacheLine * kCacheLine;
}

class AlignedBuffer {
 public:
  static constexpr std::size_t kAlignment = kCacheLine;
  // Buffers of at least this size are aligned to it, and the system is asked to back them with
  // pages of it.
  static constexpr std::size_t kHugePage = std::size_t{2} << 20;

  // Grows to at least `bytes`; the old contents are lost. Throws std::bad_alloc.
  void reserve(std::size_t bytes) {
    if (bytes <= size_) {
      return;
    }
    const std::size_t alignment = bytes < kHugePage ? kAlignment : kHugePage;
    const std::size_t padded = (bytes + alignment - 1) / alignment * alignment;
    auto* memory = static_cast<std::byte*>(std::aligned_alloc(alignment, padded));
    if (memory == nullptr) {
      throw std::bad_alloc();
    }
#if defined(__linux__)
    if (alignment == kHugePage) {
      madvise(memory, padded, MADV_HUGEPAGE);  // a wish; without, everything still works
    }
#endif
    // Kernels read whole vectors: what lies beyond the data meets weights of 0, or is dropped. No
    // result depends on it, but MemorySanitizer and Valgrind cannot know.
    std::memset(memory, 0, padded);
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
