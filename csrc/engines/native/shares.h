// How native kernels divide their work among the threads.
#pragma once

#include <cstddef>
#include <cstdint>

#include "runtime/thread_pool.h"

namespace pyquant::native {

// Calls visit(first, count) for each thread's share of `total` items.
template <typename Visit>
void for_each_share(ThreadPool& pool, std::int64_t total, Visit visit) {
  pool.run([&](int thread) {
    const Range range = slice_of(total, thread, pool.size());
    if (range.begin != range.end) {
      visit(range.begin, static_cast<std::size_t>(range.end - range.begin));
    }
  });
}

}  // namespace pyquant::native
