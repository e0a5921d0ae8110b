#include "runtime/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "pyquant/error.h"

namespace pyquant {
namespace {

[[noreturn]] void fail(const std::string& path, const char* what) {
  throw IoError("cannot " + std::string(what) + " " + path + ": " + std::strerror(errno));
}

struct Descriptor {
  int value;
  ~Descriptor() {
    if (value >= 0) {
      close(value);
    }
  }
};

}  // namespace

MappedFile::MappedFile(const std::string& path) {
  const Descriptor descriptor{open(path.c_str(), O_RDONLY | O_CLOEXEC)};
  if (descriptor.value < 0) {
    fail(path, "open");
  }
  struct stat status{};
  if (fstat(descriptor.value, &status) != 0) {
    fail(path, "read");
  }
  if (!S_ISREG(status.st_mode)) {
    throw IoError("cannot read " + path + ": it is not a regular file");
  }
  size_ = static_cast<std::size_t>(status.st_size);
  if (size_ == 0) {
    return;  // nothing to map; the reader will say that it is no Program
  }
  data_ = mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, descriptor.value, 0);
  if (data_ == MAP_FAILED) {
    data_ = nullptr;
    fail(path, "map");
  }
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) {
    munmap(data_, size_);
  }
}

}  // namespace pyquant
