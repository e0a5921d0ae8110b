#include "pyquant/recurrent.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <string>

#include "dynamic/matrix.h"
#include "dynamic/workspace_impl.h"
#include "pyquant/error.h"

namespace pyquant {
namespace {

// Rows of the input that are multiplied together: what they give the gates stays in the cache until
// their steps are done.
constexpr std::size_t kChunkRows = 128;

struct CellKind {
  std::int64_t gates;
  CellFunction DynamicKernels::* function;
};

const CellKind& kind_of(RecurrentCell cell) {
  static constexpr CellKind kKinds[] = {{4, &DynamicKernels::lstm_cell},
                                        {3, &DynamicKernels::gru_cell},
                                        {1, &DynamicKernels::tanh_cell},
                                        {1, &DynamicKernels::relu_cell}};
  return kKinds[static_cast<std::size_t>(cell)];
}

std::size_t size(std::int64_t value) { return static_cast<std::size_t>(value); }

}  // namespace

std::int64_t gate_count(RecurrentCell cell) { return kind_of(cell).gates; }

class RecurrentLayer::Impl {
 public:
  Impl(RecurrentCell cell, const Int8Weights& input, const Int8Weights& state,
       const Int8Weights& projection)
      : cell_(cell),
        function_(kernel_table().dynamic->*kind_of(cell).function),
        input_(input, "a recurrent layer's input"),
        state_(state, "a recurrent layer's state"),
        gates_(state_.outputs()),
        hidden_(gates_ / size(gate_count(cell))) {
    if (!projection.values.empty()) {
      projection_.emplace(projection, "a recurrent layer's projection");
    }
    const bool fits = projection_
                          ? cell == RecurrentCell::kLstm && projection_->inputs() == hidden_ &&
                                projection_->outputs() == state_.inputs()
                          : state_.inputs() == hidden_;
    if (!fits || input_.outputs() != gates_ || gates_ % size(gate_count(cell)) != 0) {
      throw InvalidInputError("the weights of a recurrent layer do not fit each other");
    }
  }

  RecurrentCell cell() const { return cell_; }
  std::size_t inputs() const { return input_.inputs(); }
  std::size_t hidden() const { return hidden_; }
  std::size_t outputs() const { return state_.inputs(); }

  void run(const RecurrentArgs& args, Workspace::Impl& workspace) const {
    const auto batch = args.batch_sizes.front();
    ThreadPool& pool = workspace.pool;
    pool.set_alone(false);
    // Sequences are independent of each other: no thread waits for another. Of fewer sequences than
    // threads all share the multiplications of each.
    const bool shares = batch < pool.size();
    const Range all = {0, batch};
    const Range largest = shares ? all : Range{0, (batch + pool.size() - 1) / pool.size()};
    Scratch scratch{};
    const std::size_t bytes = carve(nullptr, largest, args.batch_sizes.size(), scratch);
    std::byte* memory = workspace.shared(bytes * size(shares ? 1 : pool.size()));
    if (shares) {
      run_rows(args, all, shares, 0, memory, workspace);
      return;
    }
    pool.run([&](int thread) {
      run_rows(args, slice_of(batch, thread, pool.size()), shares, thread,
               memory + bytes * size(thread), workspace);
    });
  }

 private:
  // What one thread works in.
  struct Scratch {
    QuantizedRows x, h, full;
    float* input_gates;   // [chunk, gates]
    float* hidden_gates;  // [rows, gates]
    float* full_h;        // [rows, hidden], before a projection
  };

  // Steps of a chunk.
  static std::size_t chunk_of(Range range, std::size_t steps) {
    return std::clamp<std::size_t>(kChunkRows / size(range.end - range.begin), 1, steps);
  }

  // Returns the bytes taken.
  std::size_t carve(std::byte* base, Range range, std::size_t steps, Scratch& to) const {
    const std::size_t rows = size(range.end - range.begin);
    // Grows with the rows, so that what fits the largest range fits all.
    const std::size_t chunk = std::min(std::max(rows, kChunkRows), rows * steps);
    Carver carver(base);
    const auto quantized = [&](const DynamicMatrix& matrix, std::size_t count) {
      return QuantizedRows{carver.take<std::uint8_t>(count * matrix.row_bytes()),
                           carver.take<RowQParams>(count)};
    };
    to.x = quantized(input_, chunk);
    to.h = quantized(state_, rows);
    to.input_gates = carver.take<float>(chunk * gates_);
    to.hidden_gates = carver.take<float>(rows * gates_);
    if (projection_) {
      to.full = quantized(*projection_, rows);
      to.full_h = carver.take<float>(rows * hidden_);
    }
    return carver.used();
  }

  // All steps of a range of sequences, on one thread; or by all, who share the multiplications.
  void run_rows(const RecurrentArgs& args, Range range, bool shares, int thread, std::byte* memory,
                Workspace::Impl& workspace) const {
    const std::size_t steps = args.batch_sizes.size();
    const std::size_t chunk_steps = chunk_of(range, steps);
    Scratch scratch{};
    carve(memory, range, steps, scratch);
    const auto multiply = [&](const DynamicMatrix& matrix, const QuantizedRows& x, std::size_t rows,
                              float* y, std::size_t stride) {
      const auto share = [&](int worker, Range blocks) {
        const std::size_t bytes = matrix.sums() * sizeof(std::int32_t);
        auto* sums = reinterpret_cast<std::int32_t*>(workspace.own(worker, bytes));
        matrix.multiply(x, rows, blocks, sums, y, stride);
      };
      if (!shares) {
        share(thread, {0, matrix.blocks()});
        return;
      }
      workspace.pool.run([&](int worker) {
        share(worker, slice_of(matrix.blocks(), worker, workspace.pool.size()));
      });
    };

    // The row of y and x where a step begins.
    std::size_t first_row = 0;
    if (args.reverse) {
      for (const std::int64_t count : args.batch_sizes) {
        first_row += size(count);
      }
    }
    for (std::size_t done = 0; done < steps; done += chunk_steps) {
      const std::size_t now = std::min(chunk_steps, steps - done);
      const auto step_of = [&](std::size_t i) { return args.reverse ? steps - 1 - i : i; };
      const auto active = [&](std::size_t i) {
        const std::int64_t count = args.batch_sizes[step_of(i)];
        return size(std::clamp(count - range.begin, std::int64_t{0}, range.end - range.begin));
      };
      // The inputs of these steps, in the order in which the steps come.
      std::size_t gathered = 0;
      std::size_t row = first_row;
      for (std::size_t i = done; i < done + now; ++i) {
        const std::size_t count = size(args.batch_sizes[step_of(i)]);
        row -= args.reverse ? count : 0;
        input_.quantize(args.x + (row + size(range.begin)) * inputs(), inputs(), active(i),
                        scratch.x, gathered);
        gathered += active(i);
        row += args.reverse ? 0 : count;
      }
      multiply(input_, scratch.x, gathered, scratch.input_gates, gates_);
      const float* input_gates = scratch.input_gates;
      for (std::size_t i = done; i < done + now; ++i) {
        const std::size_t count = size(args.batch_sizes[step_of(i)]);
        first_row -= args.reverse ? count : 0;
        float* y = args.y + (first_row + size(range.begin)) * size(args.y_stride);
        step(args, range.begin, active(i), input_gates, scratch, multiply, y);
        input_gates += active(i) * gates_;
        first_row += args.reverse ? 0 : count;
      }
    }
  }

  template <typename Multiply>
  void step(const RecurrentArgs& args, std::int64_t first, std::size_t rows,
            const float* input_gates, const Scratch& scratch, const Multiply& multiply,
            float* y) const {
    float* h = args.h + size(first) * outputs();
    float* c = args.c == nullptr ? nullptr : args.c + size(first) * hidden_;
    state_.quantize(h, outputs(), rows, scratch.h);
    multiply(state_, scratch.h, rows, scratch.hidden_gates, gates_);
    float* full = projection_ ? scratch.full_h : h;
    for (std::size_t row = 0; row < rows; ++row) {
      function_(input_gates + row * gates_, scratch.hidden_gates + row * gates_, hidden_,
                full + row * hidden_, c == nullptr ? nullptr : c + row * hidden_);
    }
    if (projection_) {
      projection_->quantize(full, hidden_, rows, scratch.full);
      multiply(*projection_, scratch.full, rows, h, outputs());
    }
    for (std::size_t row = 0; row < rows; ++row) {
      std::memcpy(y + row * size(args.y_stride), h + row * outputs(), outputs() * sizeof(float));
    }
  }

  RecurrentCell cell_;
  CellFunction function_;
  DynamicMatrix input_, state_;
  std::optional<DynamicMatrix> projection_;
  std::size_t gates_, hidden_;
};

RecurrentLayer::RecurrentLayer(RecurrentCell cell, const Int8Weights& input,
                               const Int8Weights& state, const Int8Weights& projection)
    : impl_(std::make_unique<Impl>(cell, input, state, projection)) {}
RecurrentLayer::~RecurrentLayer() = default;
RecurrentLayer::RecurrentLayer(RecurrentLayer&&) noexcept = default;
RecurrentLayer& RecurrentLayer::operator=(RecurrentLayer&&) noexcept = default;

RecurrentCell RecurrentLayer::cell() const { return impl_->cell(); }
std::int64_t RecurrentLayer::inputs() const { return static_cast<std::int64_t>(impl_->inputs()); }
std::int64_t RecurrentLayer::hidden() const { return static_cast<std::int64_t>(impl_->hidden()); }
std::int64_t RecurrentLayer::outputs() const { return static_cast<std::int64_t>(impl_->outputs()); }

void RecurrentLayer::run(const RecurrentArgs& args, Workspace& workspace) const {
  if (args.batch_sizes.empty()) {
    return;
  }
  std::int64_t last = args.batch_sizes.front();
  for (const std::int64_t count : args.batch_sizes) {
    if (count < 1 || count > last) {
      throw InvalidInputError(
          "the batch sizes of a packed sequence are at least 1 and never "
          "increase; here " +
          std::to_string(count) + " follows " + std::to_string(last));
    }
    last = count;
  }
  impl_->run(args, workspace.impl());
}

}  // namespace pyquant
