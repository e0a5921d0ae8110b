#include <cstring>
#include <vector>

#include "engines/native/native_engine.h"
#include "engines/native/shares.h"
#include "kernels/kernel_table.h"
#include "quant/resample.h"

namespace pyquant::native {
namespace {

class BoundResizeNearest final : public BoundKernel {
 public:
  BoundResizeNearest(const Operator& op, std::span<const StridedShape> inputs,
                     const StridedShape& output, int /*threads*/)
      : from_(inputs[0]), to_(output) {
    const auto& resize = std::get<ResizeNearest>(op.attributes);
    ratio_h_ = resize_ratio(from_[1], to_[1], resize.scale_h);
    const float ratio_w = resize_ratio(from_[2], to_[2], resize.scale_w);
    for (std::int64_t ow = 0; ow < to_[2]; ++ow) {
      columns_.push_back(nearest_pixel(ow, ratio_w, from_[2]) * from_[3]);
    }
    // An enlargement by a whole number repeats all pixels alike.
    const std::int64_t repeats = to_[2] / from_[2];
    bool whole = to_[2] % from_[2] == 0;
    for (std::int64_t ow = 0; ow < to_[2] && whole; ++ow) {
      whole = columns_[static_cast<std::size_t>(ow)] == ow / repeats * from_[3];
    }
    repeats_ = whole ? repeats : 0;
  }

  void run(const RunArgs& args) override {
    const auto* x = static_cast<const std::uint8_t*>(args.inputs[0]);
    auto* y = static_cast<std::uint8_t*>(args.output);
    const std::int64_t row_bytes = to_[2] * to_.pixel_stride;
    const bool gaps = to_.pixel_stride != to_[3];
    for_each_share(*args.pool, to_[0] * to_[1], [&](std::int64_t first, std::size_t count) {
      std::int64_t above = -1;  // the input row, over all images, of the row above
      std::uint8_t* row = y + first * row_bytes;
      for (std::size_t i = 0; i < count; ++i, ++first, row += row_bytes) {
        const std::int64_t source =
            first / to_[1] * from_[1] + nearest_pixel(first % to_[1], ratio_h_, from_[1]);
        if (source == above && !gaps) {
          std::memcpy(row, row - row_bytes, static_cast<std::size_t>(row_bytes));
        } else {
          widen_row(x + source * from_[2] * from_[3], row);
        }
        above = source;
      }
    });
  }

 private:
  void widen_row(const std::uint8_t* x, std::uint8_t* y) const {
    const std::int64_t channels = from_[3];
    const auto bytes = static_cast<std::size_t>(channels);
    for (std::int64_t repeat = 0; repeat < repeats_; ++repeat) {
      kernels_.copy_rows(x, channels, y + repeat * to_.pixel_stride, repeats_ * to_.pixel_stride,
                         static_cast<std::size_t>(from_[2]), bytes);
    }
    if (repeats_ == 0) {
      for (const std::int64_t column : columns_) {
        std::memcpy(y, x + column, bytes);
        y += to_.pixel_stride;
      }
    }
  }

  const KernelTable& kernels_ = kernel_table();
  Shape from_;
  StridedShape to_;
  float ratio_h_ = 1.0F;
  std::int64_t repeats_ = 0;           // of each pixel of a row; 0: as `columns_` says
  std::vector<std::int64_t> columns_;  // where the pixel of an output column begins in its row
};

class BoundResizeBilinear final : public BoundKernel {
 public:
  BoundResizeBilinear(const Operator& op, std::span<const StridedShape> inputs,
                      const StridedShape& output, int /*threads*/)
      : from_(inputs[0]),
        to_(output),
        zero_point_(op.inputs[0].qparams.zero_point),
        multiplier_(op.inputs[0].qparams.scale / op.output.qparams.scale),
        range_{op.output.qparams.zero_point, 0, 255} {
    const auto& resize = std::get<ResizeBilinear>(op.attributes);
    for (std::int64_t oh = 0; oh < to_[1]; ++oh) {
      rows_.push_back(linear_taps(oh, from_[1], to_[1], resize.scale_h, resize.align_corners));
    }
    for (std::int64_t ow = 0; ow < to_[2]; ++ow) {
      columns_.push_back(linear_taps(ow, from_[2], to_[2], resize.scale_w, resize.align_corners));
    }
  }

  void run(const RunArgs& args) override {
    const auto* x = static_cast<const std::uint8_t*>(args.inputs[0]);
    auto* y = static_cast<std::uint8_t*>(args.output);
    const std::int64_t channels = from_[3];
    const std::int64_t row_bytes = from_[2] * channels;
    for_each_share(*args.pool, to_[0] * to_[1], [&](std::int64_t first, std::size_t count) {
      std::uint8_t* pixel = y + first * to_[2] * to_.pixel_stride;
      for (std::size_t i = 0; i < count; ++i, ++first) {
        const LinearTaps& h = rows_[static_cast<std::size_t>(first % to_[1])];
        const std::uint8_t* image = x + first / to_[1] * from_[1] * row_bytes;
        const std::uint8_t* upper = image + h.first * row_bytes;
        const std::uint8_t* lower = image + h.second * row_bytes;
        for (const LinearTaps& w : columns_) {
          const std::uint8_t* const pixels[] = {
              upper + w.first * channels, upper + w.second * channels, lower + w.first * channels,
              lower + w.second * channels};
          const BlendWeights weights = {h.first_weight, h.second_weight, w.first_weight,
                                        w.second_weight};
          kernels_.blend(pixels, weights, zero_point_, multiplier_,
                         static_cast<std::size_t>(channels), range_, pixel);
          pixel += to_.pixel_stride;
        }
      }
    });
  }

 private:
  const KernelTable& kernels_ = kernel_table();
  Shape from_;
  StridedShape to_;
  std::int32_t zero_point_;
  float multiplier_;
  OutputRange range_;
  std::vector<LinearTaps> rows_, columns_;
};

}  // namespace

std::unique_ptr<PreparedKernel> prepare_resize_nearest(const Operator& op) {
  return std::make_unique<WeightlessKernel<BoundResizeNearest, Strides{.output = true}>>(op);
}

std::unique_ptr<PreparedKernel> prepare_resize_bilinear(const Operator& op) {
  return std::make_unique<WeightlessKernel<BoundResizeBilinear, Strides{.output = true}>>(op);
}

}  // namespace pyquant::native
