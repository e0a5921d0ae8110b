// Flatten, Pad, Concat, Slice and ChannelShuffle: bytes go elsewhere, in rows.
#include <algorithm>
#include <cstring>
#include <vector>

#include "engines/native/native_engine.h"
#include "engines/native/shares.h"
#include "kernels/kernel_table.h"

namespace pyquant::native {
namespace {

// Rows of bytes at a fixed distance.
struct Rows {
  std::int64_t bytes, stride, first;  // first: offset of the first row
};

// Elements of all axes outside of `axis`.
std::int64_t outer_elements(const Shape& shape, std::int32_t axis) {
  std::int64_t count = 1;
  for (std::int32_t i = 0; i < axis; ++i) {
    count *= shape[static_cast<std::size_t>(i)];
  }
  return count;
}

class BoundConcat final : public BoundKernel {
 public:
  BoundConcat(const Operator& op, std::span<const Shape> inputs, const Shape& output,
              int /*threads*/)
      : rows_(outer_elements(output, std::get<Concat>(op.attributes).axis)),
        row_bytes_(output.elements() / rows_) {
    std::int64_t first = 0;
    for (const Shape& input : inputs) {
      const std::int64_t bytes = input.elements() / rows_;
      inputs_.push_back({bytes, bytes, first});
      first += bytes;
    }
  }

  void run(const RunArgs& args) override {
    auto* y = static_cast<std::uint8_t*>(args.output);
    for_each_share(*args.pool, rows_, [&](std::int64_t row, std::size_t count) {
      for (std::size_t i = 0; i < inputs_.size(); ++i) {
        const Rows& input = inputs_[i];
        kernels_.copy_rows(static_cast<const std::uint8_t*>(args.inputs[i]) + row * input.stride,
                           input.stride, y + row * row_bytes_ + input.first, row_bytes_, count,
                           static_cast<std::size_t>(input.bytes));
      }
    });
  }

 private:
  const KernelTable& kernels_ = kernel_table();
  std::int64_t rows_, row_bytes_;
  std::vector<Rows> inputs_;
};

// Concat of two interleaved: one element of each in turn, so that where a row ends does not matter.
class BoundZip final : public BoundKernel {
 public:
  BoundZip(const Operator& /*op*/, std::span<const Shape> inputs, const Shape& /*output*/,
           int /*threads*/)
      : count_(inputs[0].elements()) {}

  void run(const RunArgs& args) override {
    const auto* a = static_cast<const std::uint8_t*>(args.inputs[0]);
    const auto* b = static_cast<const std::uint8_t*>(args.inputs[1]);
    auto* y = static_cast<std::uint8_t*>(args.output);
    for_each_share(*args.pool, count_, [&](std::int64_t first, std::size_t count) {
      kernels_.zip_rows(a + first, 0, b + first, 0, y + 2 * first, 0, 1, count);
    });
  }

 private:
  const KernelTable& kernels_ = kernel_table();
  std::int64_t count_;
};

class BoundInterleave final : public BoundKernel {
 public:
  BoundInterleave(const Operator& /*op*/, std::span<const Shape> inputs, const Shape& /*output*/,
                  int /*threads*/)
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
  BoundSlice(const Operator& op, std::span<const Shape> inputs, const Shape& output,
             int /*threads*/) {
    const auto& slice = std::get<Slice>(op.attributes);
    const auto axis = static_cast<std::size_t>(slice.axis);
    rows_ = outer_elements(output, slice.axis);
    const std::int64_t bytes = output.elements() / rows_;
    const std::int64_t inner = bytes / output[axis];
    from_ = {bytes, inputs[0].elements() / rows_, slice.begin_in(inputs[0][axis]) * inner};
  }

  void run(const RunArgs& args) override {
    const auto* x = static_cast<const std::uint8_t*>(args.inputs[0]) + from_.first;
    auto* y = static_cast<std::uint8_t*>(args.output);
    for_each_share(*args.pool, rows_, [&](std::int64_t row, std::size_t count) {
      kernels_.copy_rows(x + row * from_.stride, from_.stride, y + row * from_.bytes, from_.bytes,
                         count, static_cast<std::size_t>(from_.bytes));
    });
  }

 private:
  const KernelTable& kernels_ = kernel_table();
  std::int64_t rows_ = 0;
  Rows from_{};
};

class BoundChannelShuffle final : public BoundKernel {
 public:
  BoundChannelShuffle(const Operator& op, std::span<const Shape> inputs, const Shape& /*output*/,
                      int /*threads*/)
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
  BoundFlatten(const Operator& /*op*/, std::span<const Shape> inputs, const Shape& output,
               int /*threads*/) {
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
  BoundPad(const Operator& op, std::span<const Shape> inputs, const Shape& output, int /*threads*/)
      : pad_(std::get<Pad>(op.attributes)),
        border_(op.output.qparams.zero_point),
        from_(inputs[0]),
        to_(output),
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
    return std::make_unique<WeightlessKernel<BoundConcat>>(op);
  }
  if (op.inputs.size() == 2) {
    return std::make_unique<WeightlessKernel<BoundZip>>(op);
  }
  return std::make_unique<WeightlessKernel<BoundInterleave>>(op);
}

std::unique_ptr<PreparedKernel> prepare_slice(const Operator& op) {
  return std::make_unique<WeightlessKernel<BoundSlice>>(op);
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
