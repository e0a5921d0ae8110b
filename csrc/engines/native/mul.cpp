#include <algorithm>
#include <array>
#include <cstring>

#include "engines/native/native_engine.h"
#include "kernels/kernel_table.h"
#include "quant/requantize.h"
#include "runtime/thread_pool.h"

namespace pyquant::native {
namespace {

// A dimension of the output and how far each operand moves per step: 0 where it is repeated.
struct Axis {
  std::int64_t size;
  std::array<std::int64_t, 2> strides;
};

// The output's dimensions, innermost first, with those merged that both operands walk through as
// if they were one. At least one.
std::vector<Axis> merged_axes(const Shape& a, const Shape& b, const Shape& output) {
  std::vector<Axis> axes;
  std::array<std::int64_t, 2> elements = {1, 1};
  for (std::size_t axis = output.rank(); axis-- > 0;) {
    const std::array<std::int64_t, 2> sizes = {a[axis], b[axis]};
    Axis next{output[axis], {}};
    for (std::size_t operand = 0; operand < 2; ++operand) {
      next.strides[operand] = sizes[operand] == 1 ? 0 : elements[operand];
      elements[operand] *= sizes[operand];
    }
    if (next.size == 1) {
      continue;
    }
    const auto continues = [&](std::size_t operand) {
      return next.strides[operand] == axes.back().strides[operand] * axes.back().size;
    };
    if (!axes.empty() && continues(0) && continues(1)) {
      axes.back().size *= next.size;
    } else {
      axes.push_back(next);
    }
  }
  if (axes.empty()) {
    axes.push_back({1, {1, 1}});
  }
  return axes;
}

// After merging, the innermost axis is one that both operands walk, or one on which one of them
// stands still; in the first case the axis around it, if any, repeats the row of one of them. That
// one is the kernel's repeated row.
class BoundMul final : public BoundKernel {
 public:
  BoundMul(const Operator& op, std::span<const Shape> inputs, const Shape& output, int /*threads*/)
      : axes_(merged_axes(inputs[0], inputs[1], output)), elements_(output.elements()) {
    const auto& attributes = std::get<Mul>(op.attributes);
    range_ = {op.output.qparams.zero_point, attributes.output_min, attributes.output_max};
    multiplier_ =
        std::min(requantize_multiplier(op.inputs[0].qparams.scale, op.inputs[1].qparams.scale,
                                       op.output.qparams.scale),
                 kMaxMulMultiplier);
    const auto& inner = axes_[0].strides;
    both_walk_ = inner[0] == 1 && inner[1] == 1;
    const auto& deciding = both_walk_ && axes_.size() > 1 ? axes_[1].strides : inner;
    repeated_ = deciding[0] == 0 ? 0 : 1;
    for (std::size_t input = 0; input < 2; ++input) {
      zero_points_[input] = op.inputs[input].qparams.zero_point;
    }
  }

  void run(const RunArgs& args) override {
    args.pool->run([&](int thread) {
      const Slice slice = slice_of(elements_, thread, args.pool->size());
      for (std::int64_t at = slice.begin; at < slice.end;) {
        at += run_from(args, at, slice.end);
      }
    });
  }

 private:
  // Computes outputs from element `begin` on, as many as one call of the kernel can within `end`;
  // returns how many.
  std::int64_t run_from(const RunArgs& args, std::int64_t begin, std::int64_t end) const {
    const std::int64_t row_size = axes_[0].size;
    const std::int64_t column = begin % row_size;
    std::int64_t count = std::min(row_size - column, end - begin);
    std::int64_t rows = 1;
    if (both_walk_ && axes_.size() > 1 && count == row_size) {
      rows = std::min(axes_[1].size - begin / row_size % axes_[1].size, (end - begin) / row_size);
    }
    std::array<const std::uint8_t*, 2> sources{};
    for (std::size_t input = 0; input < 2; ++input) {
      sources[input] = static_cast<const std::uint8_t*>(args.inputs[input]) +
                       offset_of(input, begin / row_size) + column * axes_[0].strides[input];
    }
    const std::size_t walking = 1 - repeated_;
    const MulOperand x{sources[walking], zero_points_[walking]};
    const MulOperand r{sources[repeated_], zero_points_[repeated_]};
    auto* y = static_cast<std::uint8_t*>(args.output) + begin;
    if (both_walk_) {
      kernels_.mul(x, r, multiplier_, static_cast<std::size_t>(rows),
                   static_cast<std::size_t>(count), range_, y);
    } else {
      run_constant(x, r, static_cast<std::size_t>(count), y);
    }
    return rows * count;
  }

  // One value against `count` ones: as a repeated row of that value.
  void run_constant(MulOperand x, MulOperand value, std::size_t count, std::uint8_t* y) const {
    constexpr std::size_t kRow = 256;
    std::array<std::uint8_t, kRow> row;
    std::memset(row.data(), *value.data, std::min(count, kRow));
    const MulOperand r{row.data(), value.zero_point};
    const std::size_t whole = count / kRow * kRow;
    kernels_.mul(x, r, multiplier_, whole / kRow, kRow, range_, y);
    kernels_.mul({x.data + whole, x.zero_point}, r, multiplier_, 1, count - whole, range_,
                 y + whole);
  }

  // Where the row of that number begins in an operand.
  std::int64_t offset_of(std::size_t input, std::int64_t row) const {
    std::int64_t offset = 0;
    for (std::size_t axis = 1; axis < axes_.size(); ++axis) {
      offset += row % axes_[axis].size * axes_[axis].strides[input];
      row /= axes_[axis].size;
    }
    return offset;
  }

  const KernelTable& kernels_ = kernel_table();
  std::vector<Axis> axes_;
  std::int64_t elements_;
  bool both_walk_ = false;
  std::size_t repeated_ = 1;  // which input the kernel takes as the repeated row
  std::array<std::int32_t, 2> zero_points_{};
  float multiplier_ = 0.0F;
  OutputRange range_{};
};

}  // namespace

std::unique_ptr<PreparedKernel> prepare_mul(const Operator& op) {
  return std::make_unique<WeightlessKernel<BoundMul>>(op);
}

}  // namespace pyquant::native
