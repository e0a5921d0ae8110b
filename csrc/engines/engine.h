// An engine is one way to run operators: reference, native, fbgemm, qnnpack. All implement this
// interface:
//   prepare  once per operator: pack weights, compute multipliers. The result is immutable and
//            shared by all threads.
//   bind     once per input shape and session: offsets, indirection, scratch size.
//   run      many times: no allocation, no locking.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "pyquant/export.h"
#include "pyquant/operator.h"
#include "pyquant/tensor.h"

namespace pyquant {

class ThreadPool;

// The shape of a tensor, and how far apart its pixels are: elements from one position along all
// axes but the last to the next one. Most often that is the last axis; it is more where the tensor
// is some of the channels of a wider one.
struct StridedShape : Shape {
  StridedShape() = default;
  explicit StridedShape(const Shape& shape)
      : Shape(shape), pixel_stride(rank() == 0 ? 1 : shape[rank() - 1]) {}
  StridedShape(const Shape& shape, std::int64_t stride) : Shape(shape), pixel_stride(stride) {}

  const Shape& shape() const { return *this; }

  std::int64_t pixel_stride = 0;
};

struct RunArgs {
  // One pointer per *activation* input, in operator order (constants were taken in prepare), each
  // aligned to 64 bytes unless it is a Program input or a part of another tensor.
  std::span<const void* const> inputs;
  void* output = nullptr;
  std::byte* scratch = nullptr;  // BoundKernel::scratch_bytes() bytes, aligned to 64
  ThreadPool* pool = nullptr;    // never null
};

// A prepared operator bound to shapes. Used by one thread at a time.
class BoundKernel {
 public:
  virtual ~BoundKernel() = default;
  virtual std::size_t scratch_bytes() const { return 0; }
  // The input, as an index into RunArgs::inputs, in whose place the output may be: it has the
  // output's shape and dtype, neither takes strides, and each of its bytes is read before that of
  // the output is written, once, by the same thread. The other inputs are then elsewhere.
  virtual std::optional<std::size_t> overwritable_input() const { return std::nullopt; }
  virtual void run(const RunArgs& args) = 0;

  // The weights that it reads first, if it reads many; and those that the kernel after it reads
  // first, which `run` may fetch into the cache.
  virtual std::span<const std::byte> first_weights() const { return {}; }
  virtual void fetch(std::span<const std::byte> /*next_weights*/) {}
};

// An operator whose weights are packed. Immutable; shared by all sessions.
class PreparedKernel {
 public:
  virtual ~PreparedKernel() = default;
  // inputs: shapes of the activation inputs; output: what infer_output_shape gave; threads: how
  // many the pool in RunArgs will have. The PreparedKernel outlives the BoundKernel.
  virtual std::unique_ptr<BoundKernel> bind(std::span<const StridedShape> inputs,
                                            const StridedShape& output, int threads) const = 0;

  // Whether an input (as an index into RunArgs::inputs), or the output, may be some of the channels
  // of a wider tensor. All others have their pixels one after the other.
  virtual bool takes_strided_input(std::size_t /*input*/) const { return false; }
  virtual bool takes_strided_output() const { return false; }
};

// An operator that an engine computes together with the one before it, before the result is stored:
// a LookupTable, or an Add of two uint8 activations of one shape.
struct PostOp {
  const Operator* op;
  std::size_t input;  // which of its inputs is the result of what comes before
};

class Engine {
 public:
  virtual ~Engine() = default;
  virtual std::string_view name() const = 0;
  // Empty if the engine runs this operator exactly on this CPU; else the reason why not.
  virtual std::string why_unsupported(const Operator& op) const = 0;
  // Whether it computes these, in this order, together with `op`, which it supports. Never changes
  // a bit: every operator rounds as it does alone.
  virtual bool fuses(const Operator& /*op*/, std::span<const PostOp> /*post_ops*/) const {
    return false;
  }
  // Called only where why_unsupported is empty, and with post-ops only where `fuses` is true. The
  // kernel's inputs are then those of `op`, followed by the other inputs of the post-ops.
  virtual std::unique_ptr<PreparedKernel> prepare(const Operator& op,
                                                  std::span<const PostOp> post_ops) const = 0;
};

// Engines known to this process. The core registers reference and native by itself; libraries that
// add engines call register_engine once, before the first use. Not thread-safe against itself.
// `rank` orders engines for "auto": the lowest rank whose why_unsupported is empty wins.
PYQUANT_ENGINE_API void register_engine(std::unique_ptr<Engine> engine, int rank);

// All engines, best rank first.
const std::vector<const Engine*>& engines();

// The engine of that name, or throws UnsupportedError that lists the names known.
const Engine& find_engine(std::string_view name);

// The engine that runs `op`: the named one, or for "auto" the best that supports it. A named
// engine that does not support `op` hands it to the best core engine that does if `fallback`, else
// throws UnsupportedError with the reason.
const Engine& select_engine(std::string_view name, const Operator& op, bool fallback);

}  // namespace pyquant
