// Threads and memory for layers that are run one at a time, without a Program.
#pragma once

#include <memory>

#include "pyquant/export.h"

namespace pyquant {

// Used by one thread at a time; layers share it. Its memory grows to what the largest run needed,
// after which runs allocate nothing.
class PYQUANT_API Workspace {
 public:
  // threads: 1..1024, the caller among them. Throws InvalidInputError for other numbers,
  // UnsupportedError where the system gives no more threads.
  explicit Workspace(int threads = 1);
  ~Workspace();
  Workspace(Workspace&&) noexcept;
  Workspace& operator=(Workspace&&) noexcept;

  class Impl;
  Impl& impl() { return *impl_; }

 private:
  std::unique_ptr<Impl> impl_;
};

}  // namespace pyquant
