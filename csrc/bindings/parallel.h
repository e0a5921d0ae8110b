// Loops on the threads of torch's own pool: a second pool would have to share the cores with it.
#pragma once

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/TensorIterator.h>

#include <cstdint>

namespace pyquant::python {

// Calls visit(begin, end) for parts of 0..count, none of which is smaller than `grain` unless it is
// the last. at::parallel_for itself needs OpenMP at compile time; TensorIterator's is compiled in
// libtorch.
template <typename Visit>
void parallel_for(std::int64_t count, std::int64_t grain, const Visit& visit) {
  if (count < 2 * grain) {
    if (count > 0) {
      visit(std::int64_t{0}, count);
    }
    return;
  }
  at::Tensor items = at::empty({count}, at::kByte);
  const auto* first = reinterpret_cast<const char*>(items.const_data_ptr());
  at::TensorIterator parts = at::TensorIterator::nullary_op(items);
  parts.for_each([&](char** data, const std::int64_t* /*strides*/,
                     std::int64_t part) { visit(data[0] - first, data[0] - first + part); },
                 grain);
}

}  // namespace pyquant::python
