#include "engines/native/weight_memory.h"

#include <cstring>
#include <mutex>

#include "runtime/aligned_buffer.h"

namespace pyquant::native {
namespace {

constexpr std::size_t kChunkBytes = 4 * AlignedBuffer::kHugePage;
// What is smaller is left to the allocator, and what is larger has pages of its own.
constexpr std::size_t kLeastShared = 16 * 1024;

struct Chunk {
  AlignedBuffer memory;
  std::size_t used = 0;
};

// A part of the chunk that was begun last, or of a new one; it keeps its chunk alive.
std::shared_ptr<std::byte> take(std::size_t bytes) {
  static std::mutex mutex;
  static std::weak_ptr<Chunk> current;
  const std::lock_guard lock(mutex);
  std::shared_ptr<Chunk> chunk = current.lock();
  if (chunk == nullptr || chunk->used + bytes > chunk->memory.size()) {
    chunk = std::make_shared<Chunk>();
    chunk->memory.reserve(kChunkBytes);
    current = chunk;
  }
  std::byte* begin = chunk->memory.data() + chunk->used;
  chunk->used += bytes;
  return {std::move(chunk), begin};
}

std::shared_ptr<std::byte> own(std::size_t bytes) {
  auto buffer = std::make_shared<AlignedBuffer>();
  buffer->reserve(bytes);
  std::byte* begin = buffer->data();
  return {std::move(buffer), begin};
}

}  // namespace

WeightMemory::WeightMemory(std::size_t bytes) : size_(align_to_cache_line(bytes)) {
  const bool shared = kLeastShared <= size_ && size_ <= kChunkBytes;
  memory_ = shared ? take(size_) : own(size_);
  std::memset(memory_.get(), 0, size_);
}

}  // namespace pyquant::native
