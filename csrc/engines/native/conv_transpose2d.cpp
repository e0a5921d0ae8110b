// ConvTranspose2d as convolutions. The output rows that are alike modulo the stride meet the same
// kernel rows, so each such phase, of rows and of columns, is a convolution of the whole input with
// stride 1 and a part of the kernel, upside down; its pixels go between those of the others.
#include <algorithm>
#include <numeric>
#include <string>
#include <vector>

#include "engines/native/conv_transpose2d.h"
#include "engines/native/native_engine.h"
#include "engines/native/shares.h"
#include "kernels/kernel_table.h"
#include "runtime/aligned_buffer.h"

namespace pyquant::native {
namespace {

// Each phase is a convolution, and a large stride has many.
constexpr std::int32_t kMaxStride = 16;

// One axis of a ConvTranspose2d.
struct Axis {
  std::int32_t kernel, stride, pad_before, pad_after, dilation, output_pad;
};

// One phase along one axis. Kernel rows first_tap + i * tap_step, i < taps, meet the output rows
// first_output + j * stride.
struct Phase {
  std::int32_t first_tap = 0, tap_step = 1, taps = 0;
  std::int32_t first_output = 0;
  std::int32_t pad_before = 0, pad_after = 0, dilation = 1;  // of the convolution
};

std::vector<Phase> phases_of(const Axis& axis) {
  const std::int32_t common = std::gcd(axis.stride, axis.dilation);
  std::vector<Phase> phases;
  for (std::int32_t remainder = 0; remainder < axis.stride; ++remainder) {
    Phase phase;
    phase.tap_step = axis.stride / common;
    phase.dilation = axis.dilation / common;
    while (phase.first_tap < axis.kernel &&
           std::int64_t{phase.first_tap} * axis.dilation % axis.stride != remainder) {
      ++phase.first_tap;
    }
    if (phase.first_tap < axis.kernel) {
      phase.taps = (axis.kernel - phase.first_tap - 1) / phase.tap_step + 1;
    }
    // Output row `remainder - pad_before + stride * u` reads input row u - base with its first tap.
    const std::int32_t base = (phase.first_tap * axis.dilation - remainder) / axis.stride;
    const std::int32_t first_u =
        remainder >= axis.pad_before
            ? 0
            : (axis.pad_before - remainder + axis.stride - 1) / axis.stride;
    const std::int32_t reach = (phase.taps - 1) * phase.dilation;
    phase.first_output = remainder - axis.pad_before + axis.stride * first_u;
    phase.pad_before = base + reach - first_u;
    // The output has (size - 1) * stride + rest rows, of which size - 1 + more are of this phase.
    const std::int32_t rest =
        axis.dilation * (axis.kernel - 1) + axis.output_pad + 1 - axis.pad_before - axis.pad_after;
    const std::int32_t room = rest - phase.first_output + axis.stride - 1;
    const std::int32_t more =
        room >= 0 ? room / axis.stride : -((axis.stride - 1 - room) / axis.stride);
    phase.pad_after = more - 1 - phase.pad_before + reach;
    phases.push_back(phase);
  }
  return phases;
}

Axis rows_of(const ConvTranspose2d& conv) {
  const Window& window = conv.window;
  return {window.kernel_h,   window.stride_h,   window.pad_top,
          window.pad_bottom, window.dilation_h, conv.output_pad_h};
}

Axis columns_of(const ConvTranspose2d& conv) {
  const Window& window = conv.window;
  return {window.kernel_w,  window.stride_w,   window.pad_left,
          window.pad_right, window.dilation_w, conv.output_pad_w};
}

// A phase of rows and one of columns as a convolution.
std::unique_ptr<PreparedKernel> prepare_phase(const Operator& op, const Phase& h, const Phase& w) {
  const auto& conv = std::get<ConvTranspose2d>(op.attributes);
  const Shape& shape = op.inputs[1].constant.shape;
  const auto* all = static_cast<const std::int8_t*>(op.inputs[1].constant.data);
  std::vector<std::int8_t> weights;
  for (std::int64_t o = 0; o < shape[0]; ++o) {
    for (std::int32_t i = h.taps - 1; i >= 0; --i) {
      for (std::int32_t j = w.taps - 1; j >= 0; --j) {
        const std::int64_t kh = h.first_tap + i * h.tap_step;
        const std::int64_t kw = w.first_tap + j * w.tap_step;
        const std::int8_t* taps = all + ((o * shape[1] + kh) * shape[2] + kw) * shape[3];
        weights.insert(weights.end(), taps, taps + shape[3]);
      }
    }
  }
  Operator part = op;
  part.attributes = Conv2d{{h.taps, w.taps, 1, 1, h.pad_before, w.pad_before, h.pad_after,
                            w.pad_after, h.dilation, w.dilation},
                           conv.groups,
                           conv.output_min,
                           conv.output_max};
  part.inputs[1].constant = {DType::kInt8, {shape[0], h.taps, w.taps, shape[3]}, weights.data()};
  return prepare_conv2d(part);
}

struct PreparedPhase {
  std::int64_t first_row, first_column;  // of the output
  std::unique_ptr<PreparedKernel> convolution;
};

struct Prepared {
  std::int64_t stride_h, stride_w;
  std::size_t output_size;  // bytes of one output
  std::vector<PreparedPhase> phases;
};

class BoundConvTranspose2d final : public BoundKernel {
 public:
  BoundConvTranspose2d(const Prepared& prepared, std::span<const StridedShape> inputs,
                       const StridedShape& output, int threads)
      : stride_h_(prepared.stride_h),
        stride_w_(prepared.stride_w),
        pixel_bytes_(output[3] * static_cast<std::int64_t>(prepared.output_size)),
        pixel_stride_(output.pixel_stride * static_cast<std::int64_t>(prepared.output_size)),
        y_(output.shape()) {
    for (const PreparedPhase& phase : prepared.phases) {
      if (phase.first_row >= y_[1] || phase.first_column >= y_[2]) {
        continue;
      }
      const Shape shape = {y_[0], (y_[1] - phase.first_row - 1) / stride_h_ + 1,
                           (y_[2] - phase.first_column - 1) / stride_w_ + 1, y_[3]};
      parts_.push_back(
          {phase.first_row, phase.first_column, shape,
           phase.convolution->bind(inputs, direct() ? output : StridedShape(shape), threads)});
      if (!direct()) {
        pixels_bytes_ = std::max(
            pixels_bytes_,
            align_to_cache_line(static_cast<std::size_t>(shape.elements()) * prepared.output_size));
      }
      scratch_bytes_ = std::max(scratch_bytes_, parts_.back().convolution->scratch_bytes());
    }
  }

  std::size_t scratch_bytes() const override { return pixels_bytes_ + scratch_bytes_; }

  void run(const RunArgs& args) override {
    for (const Part& part : parts_) {
      RunArgs inner = args;
      inner.scratch = args.scratch + pixels_bytes_;
      if (direct()) {
        part.convolution->run(inner);
        continue;
      }
      inner.output = args.scratch;
      part.convolution->run(inner);
      spread(part, reinterpret_cast<const std::uint8_t*>(args.scratch),
             static_cast<std::uint8_t*>(args.output), *args.pool);
    }
  }

 private:
  struct Part {
    std::int64_t first_row, first_column;
    Shape shape;
    std::unique_ptr<BoundKernel> convolution;
  };

  // Whether there is one phase, which is all of the output.
  bool direct() const { return stride_h_ == 1 && stride_w_ == 1; }

  void spread(const Part& part, const std::uint8_t* pixels, std::uint8_t* y,
              ThreadPool& pool) const {
    const Shape& shape = part.shape;
    for_each_share(pool, shape[0] * shape[1], [&](std::int64_t row, std::size_t count) {
      for (const std::int64_t end = row + static_cast<std::int64_t>(count); row < end; ++row) {
        const std::int64_t image = row / shape[1];
        const std::int64_t target = image * y_[1] + part.first_row + row % shape[1] * stride_h_;
        kernels_.copy_rows(pixels + row * shape[2] * pixel_bytes_, pixel_bytes_,
                           y + (target * y_[2] + part.first_column) * pixel_stride_,
                           stride_w_ * pixel_stride_, static_cast<std::size_t>(shape[2]),
                           static_cast<std::size_t>(pixel_bytes_));
      }
    });
  }

  const KernelTable& kernels_ = kernel_table();
  std::int64_t stride_h_, stride_w_;
  std::int64_t pixel_bytes_, pixel_stride_;  // of the output, in bytes
  Shape y_;
  std::vector<Part> parts_;
  std::size_t pixels_bytes_ = 0;   // of the largest phase's output
  std::size_t scratch_bytes_ = 0;  // of the convolutions
};

class PreparedConvTranspose2d final : public PreparedKernel {
 public:
  explicit PreparedConvTranspose2d(const Operator& op) {
    const auto& conv = std::get<ConvTranspose2d>(op.attributes);
    prepared_ = {conv.window.stride_h, conv.window.stride_w, size_of(op.output.dtype), {}};
    for (const Phase& h : phases_of(rows_of(conv))) {
      for (const Phase& w : phases_of(columns_of(conv))) {
        prepared_.phases.push_back({h.first_output, w.first_output, prepare_phase(op, h, w)});
      }
    }
  }

  std::unique_ptr<BoundKernel> bind(std::span<const StridedShape> inputs,
                                    const StridedShape& output, int threads) const override {
    return std::make_unique<BoundConvTranspose2d>(prepared_, inputs, output, threads);
  }

  bool takes_strided_input(std::size_t input) const override {
    return std::ranges::all_of(prepared_.phases, [&](const PreparedPhase& phase) {
      return phase.convolution->takes_strided_input(input);
    });
  }
  bool takes_strided_output() const override { return true; }

 private:
  Prepared prepared_;
};

}  // namespace

std::string why_not_convolutions(const ConvTranspose2d& conv) {
  for (const Axis& axis : {rows_of(conv), columns_of(conv)}) {
    if (axis.stride > kMaxStride) {
      return "it takes strides up to " + std::to_string(kMaxStride) + " in transposed convolutions";
    }
    for (const Phase& phase : phases_of(axis)) {
      if (phase.taps == 0) {
        return "it takes no transposed convolution that leaves gaps between its inputs";
      }
      if (phase.pad_before < 0 || phase.pad_after < 0) {
        return "it takes no transposed convolution with so much padding";
      }
    }
  }
  return {};
}

std::unique_ptr<PreparedKernel> prepare_conv_transpose2d(const Operator& op) {
  return std::make_unique<PreparedConvTranspose2d>(op);
}

}  // namespace pyquant::native
