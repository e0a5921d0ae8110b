#include <algorithm>
#include <cstring>

#include "engines/native/native_engine.h"
#include "kernels/kernel_table.h"
#include "quant/average.h"
#include "runtime/thread_pool.h"

namespace pyquant::native {
namespace {

// Calls visit(image, output row, thread) for the rows that fall to each thread.
template <typename Visit>
void for_each_row(ThreadPool& pool, const Shape& output, Visit visit) {
  pool.run([&](int thread) {
    const Range slice = slice_of(output[0] * output[1], thread, pool.size());
    for (std::int64_t row = slice.begin; row < slice.end; ++row) {
      visit(row / output[1], row % output[1], thread);
    }
  });
}

// First the largest of the window's rows, for all columns of the image; then of its columns.
class BoundMaxPool2d final : public BoundKernel {
 public:
  BoundMaxPool2d(const Operator& op, std::span<const StridedShape> inputs,
                 const StridedShape& output, int threads)
      : window_(std::get<MaxPool2d>(op.attributes).window),
        x_(inputs[0]),
        y_(output),
        threads_(threads),
        taps_(static_cast<std::size_t>(threads) * taps_per_thread()) {
    // The output pixels whose window is inside the image's columns.
    const std::int64_t extent = std::int64_t{window_.kernel_w - 1} * window_.dilation_w + 1;
    const std::int64_t last = x_[2] + window_.pad_left - extent;
    inside_begin_ =
        std::min<std::int64_t>((window_.pad_left + window_.stride_w - 1) / window_.stride_w, y_[2]);
    inside_end_ =
        last < 0 ? inside_begin_ : std::clamp(last / window_.stride_w + 1, inside_begin_, y_[2]);
  }

  std::size_t scratch_bytes() const override {
    return static_cast<std::size_t>(threads_) * (row_bytes() + output_row_bytes());
  }

  void run(const RunArgs& args) override {
    const auto* x = static_cast<const std::uint8_t*>(args.inputs[0]);
    for_each_row(*args.pool, y_, [&](std::int64_t n, std::int64_t oh, int thread) {
      const auto worker = static_cast<std::size_t>(thread);
      const std::uint8_t** taps = taps_.data() + worker * taps_per_thread();
      auto* columns = reinterpret_cast<std::uint8_t*>(args.scratch) +
                      worker * (row_bytes() + output_row_bytes());
      auto* target =
          static_cast<std::uint8_t*>(args.output) + (n * y_[1] + oh) * y_[2] * y_.pixel_stride;
      // A row without gaps is computed in long pieces.
      const bool gaps = y_.pixel_stride != y_[3];
      std::uint8_t* y = gaps ? columns + row_bytes() : target;
      pool_row(x + n * x_[1] * x_[2] * x_[3], oh, columns, taps, y);
      if (gaps) {
        kernels_.copy_rows(y, y_[3], target, y_.pixel_stride, static_cast<std::size_t>(y_[2]),
                           static_cast<std::size_t>(y_[3]));
      }
    });
  }

 private:
  void pool_row(const std::uint8_t* image, std::int64_t oh, std::uint8_t* columns,
                const std::uint8_t** taps, std::uint8_t* y) const {
    const std::size_t rows = window_rows(image, oh, taps);
    if (rows == 0) {
      std::memset(y, 0, output_row_bytes());
      return;
    }
    kernels_.max_rows(taps, rows, row_bytes(), 1, 0, columns);
    for (std::int64_t ow = 0; ow < y_[2]; ++ow) {
      if (ow == inside_begin_ && inside_begin_ != inside_end_) {
        pool_columns(columns, ow, inside_end_ - inside_begin_, taps, y);
        ow = inside_end_ - 1;
      } else {
        pool_columns(columns, ow, 1, taps, y);
      }
    }
  }

  std::size_t row_bytes() const { return static_cast<std::size_t>(x_[2] * x_[3]); }
  std::size_t output_row_bytes() const { return static_cast<std::size_t>(y_[2] * y_[3]); }

  // No more taps than the image has rows or columns can be inside it.
  std::size_t taps_per_thread() const {
    return static_cast<std::size_t>(std::max(std::min<std::int64_t>(window_.kernel_h, x_[1]),
                                             std::min<std::int64_t>(window_.kernel_w, x_[2])));
  }

  // The rows of the image under the windows of an output row.
  std::size_t window_rows(const std::uint8_t* image, std::int64_t oh,
                          const std::uint8_t** taps) const {
    std::size_t count = 0;
    for (std::int64_t kh = 0; kh < window_.kernel_h; ++kh) {
      const std::int64_t ih = oh * window_.stride_h - window_.pad_top + kh * window_.dilation_h;
      if (ih >= 0 && ih < x_[1]) {
        taps[count++] = image + ih * x_[2] * x_[3];
      }
    }
    return count;
  }

  // `pixels` output pixels whose windows have the same columns inside the image.
  void pool_columns(const std::uint8_t* columns, std::int64_t ow, std::int64_t pixels,
                    const std::uint8_t** taps, std::uint8_t* y) const {
    const auto channels = static_cast<std::size_t>(x_[3]);
    std::size_t count = 0;
    for (std::int64_t kw = 0; kw < window_.kernel_w; ++kw) {
      const std::int64_t iw = ow * window_.stride_w - window_.pad_left + kw * window_.dilation_w;
      if (iw >= 0 && iw < x_[2]) {
        taps[count++] = columns + iw * x_[3];
      }
    }
    if (count == 0) {
      std::memset(y + ow * y_[3], 0, channels);
    } else {
      kernels_.max_rows(taps, count, channels, static_cast<std::size_t>(pixels),
                        static_cast<std::size_t>(window_.stride_w * x_[3]), y + ow * y_[3]);
    }
  }

  const KernelTable& kernels_ = kernel_table();
  Window window_;
  Shape x_;
  StridedShape y_;
  int threads_;
  std::int64_t inside_begin_ = 0, inside_end_ = 0;
  std::vector<const std::uint8_t*> taps_;
};

// First the largest of the rows under an output row, for all columns; then of each output's
// columns.
class BoundAdaptiveMaxPool2d final : public BoundKernel {
 public:
  BoundAdaptiveMaxPool2d(const Operator& /*op*/, std::span<const StridedShape> inputs,
                         const StridedShape& output, int threads)
      : x_(inputs[0]),
        y_(output),
        threads_(threads),
        taps_(static_cast<std::size_t>(threads) * taps_per_thread()) {}

  std::size_t scratch_bytes() const override {
    return static_cast<std::size_t>(threads_) * row_bytes();
  }

  void run(const RunArgs& args) override {
    const auto* x = static_cast<const std::uint8_t*>(args.inputs[0]);
    const auto channels = static_cast<std::size_t>(x_[3]);
    for_each_row(*args.pool, y_, [&](std::int64_t n, std::int64_t oh, int thread) {
      const auto worker = static_cast<std::size_t>(thread);
      const std::uint8_t** taps = taps_.data() + worker * taps_per_thread();
      auto* columns = reinterpret_cast<std::uint8_t*>(args.scratch) + worker * row_bytes();
      auto* y =
          static_cast<std::uint8_t*>(args.output) + (n * y_[1] + oh) * y_[2] * y_.pixel_stride;
      const std::uint8_t* image = x + n * x_[1] * x_[2] * x_[3];
      const std::size_t rows = region(image, oh, x_[1], y_[1], x_[2] * x_[3], taps);
      kernels_.max_rows(taps, rows, row_bytes(), 1, 0, columns);
      for (std::int64_t ow = 0; ow < y_[2]; ++ow) {
        const std::size_t count = region(columns, ow, x_[2], y_[2], x_[3], taps);
        kernels_.max_rows(taps, count, channels, 1, 0, y + ow * y_.pixel_stride);
      }
    });
  }

 private:
  std::size_t row_bytes() const { return static_cast<std::size_t>(x_[2] * x_[3]); }
  std::size_t taps_per_thread() const { return static_cast<std::size_t>(std::max(x_[1], x_[2])); }

  // What output `index` of `outputs` takes of `size` rows, or columns, `stride` bytes apart.
  static std::size_t region(const std::uint8_t* x, std::int64_t index, std::int64_t size,
                            std::int64_t outputs, std::int64_t stride, const std::uint8_t** taps) {
    std::size_t count = 0;
    for (std::int64_t i = adaptive_begin(index, size, outputs);
         i < adaptive_end(index, size, outputs); ++i) {
      taps[count++] = x + i * stride;
    }
    return count;
  }

  const KernelTable& kernels_ = kernel_table();
  Shape x_;
  StridedShape y_;
  int threads_;
  std::vector<const std::uint8_t*> taps_;
};

// Averages regions of pixels; what both kinds of average pooling share. `Regions` gives the
// half-open input range and the divisor of each output pixel.
template <typename Regions>
class BoundAverage final : public BoundKernel {
 public:
  BoundAverage(const Operator& op, std::span<const StridedShape> inputs, const StridedShape& output,
               int threads)
      : regions_(op, inputs[0], output),
        from_(op.inputs[0].qparams),
        to_(op.output.qparams),
        x_(inputs[0]),
        y_(output),
        threads_(threads) {}

  std::size_t scratch_bytes() const override {
    return static_cast<std::size_t>(threads_) * static_cast<std::size_t>(x_[3]) *
           sizeof(std::int32_t);
  }

  void run(const RunArgs& args) override {
    const auto* x = static_cast<const std::uint8_t*>(args.inputs[0]);
    auto* y = static_cast<std::uint8_t*>(args.output);
    const auto channels = static_cast<std::size_t>(x_[3]);
    for_each_row(*args.pool, y_, [&](std::int64_t n, std::int64_t oh, int thread) {
      std::int32_t* sums = reinterpret_cast<std::int32_t*>(args.scratch) +
                           static_cast<std::size_t>(thread) * channels;
      for (std::int64_t ow = 0; ow < y_[2]; ++ow) {
        const auto region = regions_.at(oh, ow);
        std::fill_n(sums, channels, 0);
        for (std::int64_t h = region.top; h < region.bottom; ++h) {
          kernels_.accumulate(x + ((n * x_[1] + h) * x_[2] + region.left) * x_[3],
                              static_cast<std::size_t>(region.right - region.left), channels,
                              channels, sums);
        }
        const std::int64_t pixels = (region.bottom - region.top) * (region.right - region.left);
        kernels_.requantize(sums, static_cast<std::int32_t>(pixels) * from_.zero_point,
                            average_multiplier(from_.scale, to_.scale, region.count), channels,
                            {to_.zero_point, 0, 255},
                            y + ((n * y_[1] + oh) * y_[2] + ow) * y_.pixel_stride);
      }
    });
  }

 private:
  const KernelTable& kernels_ = kernel_table();
  Regions regions_;
  QParams from_, to_;
  Shape x_;
  StridedShape y_;
  int threads_;
};

struct Region {
  std::int64_t top, bottom, left, right, count;
};

class WindowRegions {
 public:
  WindowRegions(const Operator& op, const Shape& x, const Shape& /*y*/)
      : pool_(std::get<AvgPool2d>(op.attributes)), x_(x) {}

  Region at(std::int64_t oh, std::int64_t ow) const {
    const Window& window = pool_.window;
    const std::int64_t top = oh * window.stride_h - window.pad_top;
    const std::int64_t left = ow * window.stride_w - window.pad_left;
    Region region = {std::max<std::int64_t>(top, 0), std::min(top + window.kernel_h, x_[1]),
                     std::max<std::int64_t>(left, 0), std::min(left + window.kernel_w, x_[2]),
                     average_count(pool_, x_, top, left)};
    // A window that is wholly in the padding has no pixels, not a negative number of them.
    region.bottom = std::max(region.bottom, region.top);
    region.right = std::max(region.right, region.left);
    return region;
  }

 private:
  AvgPool2d pool_;
  Shape x_;
};

class AdaptiveRegions {
 public:
  AdaptiveRegions(const Operator& /*op*/, const Shape& x, const Shape& y) : x_(x), y_(y) {}

  Region at(std::int64_t oh, std::int64_t ow) const {
    Region region = {adaptive_begin(oh, x_[1], y_[1]), adaptive_end(oh, x_[1], y_[1]),
                     adaptive_begin(ow, x_[2], y_[2]), adaptive_end(ow, x_[2], y_[2]), 0};
    region.count = (region.bottom - region.top) * (region.right - region.left);
    return region;
  }

 private:
  Shape x_, y_;
};

}  // namespace

std::unique_ptr<PreparedKernel> prepare_max_pool2d(const Operator& op) {
  return std::make_unique<WeightlessKernel<BoundMaxPool2d, Strides{.output = true}>>(op);
}

std::unique_ptr<PreparedKernel> prepare_adaptive_max_pool2d(const Operator& op) {
  return std::make_unique<WeightlessKernel<BoundAdaptiveMaxPool2d, Strides{.output = true}>>(op);
}

std::unique_ptr<PreparedKernel> prepare_avg_pool2d(const Operator& op) {
  return std::make_unique<WeightlessKernel<BoundAverage<WindowRegions>, Strides{.output = true}>>(
      op);
}

std::unique_ptr<PreparedKernel> prepare_adaptive_avg_pool2d(const Operator& op) {
  return std::make_unique<WeightlessKernel<BoundAverage<AdaptiveRegions>, Strides{.output = true}>>(
      op);
}

}  // namespace pyquant::native
