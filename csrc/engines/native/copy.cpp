// Flatten, Pad, Concat, Slice and ChannelShuffle: bytes go elsewhere, in rows.
#include <algorithm>
#include <cstring>
#include <vector>

#include "engines/native/native_engine.h"
#include "engines/native/shares.h"
#include "kernels/kernel_table.h"

namespace pyquant::native {
namespace {

// Copies a range of one axis from one tensor to a range of the same axis of another, or of all
// their channels.
class RangeCopy {
 public:
  // `count` positions along `axis`, from `from_begin` and to `to_begin` on.
  RangeCopy(const StridedShape& from, std::int64_t from_begin, const StridedShape& to,
            std::int64_t to_begin, std::size_t axis, std::int64_t count) {
    const std::size_t last = to.rank() - 1;
    std::int64_t outside = 1;  // positions along the axes outside of `axis`
    for (std::size_t i = 0; i < axis; ++i) {
      outside *= to[i];
    }
    if (axis == last) {
      runs_ = 1;
      rows_ = outside;
      row_bytes_ = count;
      from_ = {from_begin, 0, from.pixel_stride};
      to_ = {to_begin, 0, to.pixel_stride};
      return;
    }
    std::int64_t inside = 1;  // pixels of one position along `axis`
    for (std::size_t i = axis + 1; i < last; ++i) {
      inside *= to[i];
    }
    runs_ = outside;
    rows_ = count * inside;
    row_bytes_ = to[last];
    const auto walk = [&](const StridedShape& shape, std::int64_t begin) {
      const std::int64_t position = inside * shape.pixel_stride;
      return Walk{begin * position, shape[axis] * position, shape.pixel_stride};
    };
    from_ = walk(from, from_begin);
    to_ = walk(to, to_begin);
    if (from_.row == row_bytes_ && to_.row == row_bytes_) {
      // Without gaps between them, the rows of a run are one.
      row_bytes_ *= rows_;
      rows_ = runs_;
      runs_ = 1;
      from_ = {from_.first, 0, from_.run};
      to_ = {to_.first, 0, to_.run};
    }
  }

  // Does the share of a thread. Nothing, if the range is where it belongs.
  void run(const KernelTable& kernels, const void* from, void* to, int thread, int threads) const {
    const auto* x = static_cast<const std::uint8_t*>(from) + from_.first;
    auto* y = static_cast<std::uint8_t*>(to) + to_.first;
    if (x == y) {
      return;
    }
    const Range share = slice_of(runs_ * rows_, thread, threads);
    for (std::int64_t begin = share.begin; begin < share.end;) {
      const std::int64_t run = begin / rows_;
      const std::int64_t row = begin % rows_;
      const std::int64_t count = std::min(rows_ - row, share.end - begin);
      kernels.copy_rows(x + run * from_.run + row * from_.row, from_.row,
                        y + run * to_.run + row * to_.row, to_.row, static_cast<std::size_t>(count),
                        static_cast<std::size_t>(row_bytes_));
      begin += count;
    }
  }

 private:
  // Bytes to the first row, from one run of rows to the next, and from one row to the next.
  struct Walk {
    std::int64_t first, run, row;
  };

  std::int64_t runs_, rows_, row_bytes_;
  Walk from_{}, to_{};
};

class BoundConcat final : public BoundKernel {
 public:
  BoundConcat(const Operator& op, std::span<const StridedShape> inputs, const StridedShape& output,
              int /*threads*/) {
    const auto axis = static_cast<std::size_t>(std::get<Concat>(op.attributes).axis);
    std::int64_t first = 0;
    for (const StridedShape& input : inputs) {
      copies_.emplace_back(input, 0, output, first, axis, input[axis]);
      first += input[axis];
    }
  }

  void run(const RunArgs& args) override {
    args.pool->run([&](int thread) {
      for (std::size_t i = 0; i < copies_.size(); ++i) {
        copies_[i].run(kernels_, args.inputs[i], args.output, thread, args.pool->size());
      }
    });
  }

 private:
  const KernelTable& kernels_ = kernel_table();
  std::vector<RangeCopy> copies_;
};

// Concat of two interleaved: one element of each in turn, so that where a row ends does not matter
// unless there are gaps between them.
class BoundZip final : public BoundKernel {
 public:
  BoundZip(const Operator& /*op*/, std::span<const StridedShape> inputs, const StridedShape& output,
           int /*threads*/)
      : a_(inputs[0]), b_(inputs[1]), y_(output), channels_(a_[a_.rank() - 1]) {
    gaps_ = a_.pixel_stride != channels_ || b_.pixel_stride != channels_ ||
            y_.pixel_stride != 2 * channels_;
    if (!gaps_) {
      a_.pixel_stride = b_.pixel_stride = 1;
      y_.pixel_stride = 2;
      channels_ = 1;
    }
  }

  void run(const RunArgs& args) override {
    const auto* a = static_cast<const std::uint8_t*>(args.inputs[0]);
    const auto* b = static_cast<const std::uint8_t*>(args.inputs[1]);
    auto* y = static_cast<std::uint8_t*>(args.output);
    for_each_share(*args.pool, a_.elements() / channels_,
                   [&](std::int64_t first, std::size_t rows) {
                     auto bytes = static_cast<std::size_t>(channels_);
                     if (!gaps_) {
                       std::swap(rows, bytes);
                     }
                     kernels_.zip_rows(a + first * a_.pixel_stride, a_.pixel_stride,
                                       b + first * b_.pixel_stride, b_.pixel_stride,
                                       y + first * y_.pixel_stride, y_.pixel_stride, rows, bytes);
                   });
  }

 private:
  const KernelTable& kernels_ = kernel_table();
  StridedShape a_, b_, y_;
  std::int64_t channels_;
  bool gaps_;
};

class BoundInterleave final : public BoundKernel {
 public:
  BoundInterleave(const Operator& /*op*/, std::span<const StridedShape> inputs,
                  const StridedShape& /*output*/, int /*threads*/)
      : inputs_(static_cast<std::int64_t>(inputs.size())), count_(inputs[0].elements()) {}

  void run(const RunArgs& args) override {
    auto* y = static_cast<std::uint8_t*>(args.output);
    for_each_share(*args.pool, count_, [&](std::int64_t first, std::size_t count) {
      for (std::int64_t input = 0; input < inputs_; ++input) {
        const auto* x =
            static_cast<const std::uint8_t*>(args.inputs[static_cast<std::size_t>(input)]) + first;
        std::uint8_t* target = y + first * inputs_ + input;
        for (std::size_t i = 0; i < count; ++i, target += inputs_) {
          *target = x[i];
        }
      }
    });
  }

 private:
  std::int64_t inputs_, count_;
};

class BoundSlice final : public BoundKernel {
 public:
  BoundSlice(const Operator& op, std::span<const StridedShape> inputs, const StridedShape& output,
             int /*threads*/)
      : copy_(inputs[0], begin_of(op, inputs[0]), output, 0, axis_of(op), output[axis_of(op)]) {}

  void run(const RunArgs& args) override {
    args.pool->run([&](int thread) {
      copy_.run(kernels_, args.inputs[0], args.output, thread, args.pool->size());
    });
  }

 private:
  static std::size_t axis_of(const Operator& op) {
    return static_cast<std::size_t>(std::get<Slice>(op.attributes).axis);
  }
  static std::int64_t begin_of(const Operator& op, const Shape& input) {
    return std::get<Slice>(op.attributes).begin_in(input[axis_of(op)]);
  }

  const KernelTable& kernels_ = kernel_table();
  RangeCopy copy_;
};

class BoundChannelShuffle final : public BoundKernel {
 public:
  BoundChannelShuffle(const Operator& op, std::span<const StridedShape> inputs,
                      const StridedShape& /*output*/, int /*threads*/)
      : channels_(inputs[0][3]),
        pixels_(inputs[0].elements() / channels_),
        groups_(std::get<ChannelShuffle>(op.attributes).groups) {}

  void run(const RunArgs& args) override {
    const auto* x = static_cast<const std::uint8_t*>(args.inputs[0]);
    auto* y = static_cast<std::uint8_t*>(args.output);
    const std::int64_t group = channels_ / groups_;
    for_each_share(*args.pool, pixels_, [&](std::int64_t first, std::size_t count) {
      const std::uint8_t* from = x + first * channels_;
      std::uint8_t* to = y + first * channels_;
      if (groups_ == 2) {
        kernels_.zip_rows(from, channels_, from + group, channels_, to, channels_, count,
                          static_cast<std::size_t>(group));
        return;
      }
      for (std::size_t pixel = 0; pixel < count; ++pixel, from += channels_, to += channels_) {
        kernels_.transpose(from, group, static_cast<std::size_t>(groups_),
                           static_cast<std::size_t>(group), to, groups_);
      }
    });
  }

 private:
  const KernelTable& kernels_ = kernel_table();
  std::int64_t channels_, pixels_, groups_;
};

// NHWC to NCHW.
class BoundFlatten final : public BoundKernel {
 public:
  BoundFlatten(const Operator& /*op*/, std::span<const StridedShape> inputs,
               const StridedShape& output, int /*threads*/) {
    const Shape& x = inputs[0];
    images_ = x[0];
    channels_ = x.rank() == 4 ? x[3] : 1;
    pixels_ = output[1] / channels_;
  }

  void run(const RunArgs& args) override {
    const auto* x = static_cast<const std::uint8_t*>(args.inputs[0]);
    auto* y = static_cast<std::uint8_t*>(args.output);
    if (channels_ == 1 || pixels_ == 1) {
      std::memcpy(y, x, static_cast<std::size_t>(images_ * channels_ * pixels_));
      return;
    }
    for_each_share(*args.pool, channels_, [&](std::int64_t channel, std::size_t count) {
      for (std::int64_t n = 0; n < images_; ++n) {
        kernels_.transpose(x + n * pixels_ * channels_ + channel, channels_,
                           static_cast<std::size_t>(pixels_), count,
                           y + (n * channels_ + channel) * pixels_, pixels_);
      }
    });
  }

 private:
  const KernelTable& kernels_ = kernel_table();
  std::int64_t images_ = 0, channels_ = 0, pixels_ = 0;
};

class BoundPad final : public BoundKernel {
 public:
  BoundPad(const Operator& op, std::span<const StridedShape> inputs, const StridedShape& output,
           int /*threads*/)
      : pad_(std::get<Pad>(op.attributes)),
        border_(op.output.qparams.zero_point),
        from_(inputs[0]),
        to_(output.shape()),
        first_(std::clamp<std::int64_t>(pad_.left, 0, to_[2])),
        last_(std::clamp<std::int64_t>(pad_.left + from_[2], first_, to_[2])) {}

  void run(const RunArgs& args) override {
    const auto* x = static_cast<const std::uint8_t*>(args.inputs[0]);
    auto* y = static_cast<std::uint8_t*>(args.output);
    for_each_share(*args.pool, to_[0] * to_[1], [&](std::int64_t row, std::size_t count) {
      for (const std::int64_t end = row + static_cast<std::int64_t>(count); row < end; ++row) {
        fill_row(x, row, y + row * to_[2] * to_[3]);
      }
    });
  }

 private:
  void fill_row(const std::uint8_t* x, std::int64_t row, std::uint8_t* y) const {
    const std::int64_t source = row % to_[1] - pad_.top;
    const std::int64_t channels = to_[3];
    if (source < 0 || source >= from_[1]) {
      std::memset(y, border_, static_cast<std::size_t>(to_[2] * channels));
      return;
    }
    std::memset(y, border_, static_cast<std::size_t>(first_ * channels));
    const std::int64_t pixel = (row / to_[1] * from_[1] + source) * from_[2] + first_ - pad_.left;
    if (first_ < last_) {
      std::memcpy(y + first_ * channels, x + pixel * channels,
                  static_cast<std::size_t>((last_ - first_) * channels));
    }
    std::memset(y + last_ * channels, border_,
                static_cast<std::size_t>((to_[2] - last_) * channels));
  }

  Pad pad_;
  std::int32_t border_;
  Shape from_, to_;
  std::int64_t first_, last_;  // the output columns that the image covers
};

}  // namespace

std::unique_ptr<PreparedKernel> prepare_concat(const Operator& op) {
  if (!std::get<Concat>(op.attributes).interleaved) {
    return std::make_unique<WeightlessKernel<BoundConcat, Strides{.inputs = true, .output = true}>>(
        op);
  }
  if (op.inputs.size() == 2) {
    return std::make_unique<WeightlessKernel<BoundZip, Strides{.inputs = true, .output = true}>>(
        op);
  }
  return std::make_unique<WeightlessKernel<BoundInterleave>>(op);
}

std::unique_ptr<PreparedKernel> prepare_slice(const Operator& op) {
  return std::make_unique<WeightlessKernel<BoundSlice, Strides{.inputs = true, .output = true}>>(
      op);
}

std::unique_ptr<PreparedKernel> prepare_channel_shuffle(const Operator& op) {
  return std::make_unique<WeightlessKernel<BoundChannelShuffle>>(op);
}

std::unique_ptr<PreparedKernel> prepare_flatten(const Operator& op) {
  return std::make_unique<WeightlessKernel<BoundFlatten>>(op);
}

std::unique_ptr<PreparedKernel> prepare_pad(const Operator& op) {
  return std::make_unique<WeightlessKernel<BoundPad>>(op);
}

}  // namespace pyquant::native
