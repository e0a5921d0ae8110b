// Where the bytes of a Program's tensors are: in memory of their own, or in another tensor's.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "engines/engine.h"
#include "runtime/program_impl.h"

namespace pyquant {

// A tensor's bytes are some of its root's: `offset` elements from the start of those, and its
// pixels `pixel_stride` elements apart (see StridedShape).
struct TensorPlace {
  std::size_t root;  // a tensor with memory of its own; most often itself
  std::int64_t offset;
  std::int64_t pixel_stride;
};

struct Placement {
  std::vector<TensorPlace> tensors;        // by tensor
  std::vector<const PreparedStep*> steps;  // those that compute anything, in execution order
};

// Given the shapes of all tensors. The output of an operator that moves no bytes shares its
// input's. With `join`, so do these, where all that read or write a tensor take strides:
//   - a Slice reads its range where it is;
//   - the inputs of a Concat are written where its output has them;
//   - a Concat whose inputs lie side by side in another's output, as those of a dense block do, is
//     a part of that.
// `prepared` outlives the result.
Placement place_tensors(const Program::Impl& program, const PreparedProgram& prepared,
                        std::span<const Shape> shapes, bool join);

}  // namespace pyquant
