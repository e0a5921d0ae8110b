// A whole file, read-only, in memory.
#pragma once

#include <cstddef>
#include <span>
#include <string>

namespace pyquant {

class MappedFile {
 public:
  // Throws IoError that names the path and the system's reason.
  explicit MappedFile(const std::string& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const std::byte> bytes() const { return {static_cast<const std::byte*>(data_), size_}; }

 private:
  void* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace pyquant
