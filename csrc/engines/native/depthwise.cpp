// Depthwise convolution. Work is done by passes: one to four output rows of up to 4 vectors of
// channels, computed from the same interleaved columns of the image (see DepthwiseBlock). Rows
// outside the image are a row of zero points; columns outside it are filled in.
#include <algorithm>
#include <cstring>

#include "engines/native/convolution.h"
#include "engines/native/divide_up.h"
#include "engines/native/post_ops.h"
#include "runtime/thread_pool.h"

namespace pyquant::native {
namespace {

// Columns of one pass, so that they stay in the first-level cache.
constexpr std::int64_t kColumnBytes = 32 * 1024;
// Of all instruction sets.
constexpr std::size_t kMostGroupRows = 4;
constexpr std::size_t kMostLanes = 64;

class PreparedDepthwise final : public PreparedKernel {
 public:
  explicit PreparedDepthwise(const ConvLayer& layer)
      : layer_(layer), group_rows_(static_cast<std::int64_t>(layer.geometry().step_inputs)) {
    const Window& window = layer.window;
    groups_ = divide_up(window.kernel_h, group_rows_);
    if (window.dilation_h == 1) {
      // As many output rows as the interleaved rows hold.
      while (rows_ < 4 &&
             window.kernel_h + (2 * rows_ - 1) * window.stride_h <= group_rows_ * groups_) {
        rows_ *= 2;
      }
    }
    const std::size_t vector = layer.geometry().vector_channels;
    for (std::int64_t first = 0; first < layer.out_channels;
         first += static_cast<std::int64_t>(lanes())) {
      const auto left = static_cast<std::size_t>(layer.out_channels - first);
      const std::size_t channels = std::min(lanes(), left);
      blocks_.push_back({first, channels, kDepthwiseVectors, vector, strips_of(channels)});
    }
    constants_ = LaneConstants(layer, blocks_);
    memory_.reserve(blocks_.size() * block_bytes());
    for (std::size_t i = 0; i < blocks_.size(); ++i) {
      if (layer.input_bytes() == sizeof(std::int8_t)) {
        pack<std::int8_t>(i);
      } else {
        pack<std::int16_t>(i);
      }
    }
    layer_.weights = nullptr;
  }

  std::unique_ptr<BoundKernel> bind(std::span<const Shape> inputs, const Shape& output,
                                    int threads) const override;

  const ConvLayer& layer() const { return layer_; }
  std::int64_t rows() const { return rows_; }
  std::int64_t groups() const { return groups_; }
  std::int64_t group_rows() const { return group_rows_; }
  // Of a block, whether or not it has as many channels.
  std::size_t lanes() const { return kDepthwiseVectors * layer_.geometry().vector_channels; }
  // One group of a column.
  std::size_t group_bytes() const { return 4 * lanes(); }
  const std::vector<LaneBlock>& blocks() const { return blocks_; }

  DepthwiseBlock block(std::size_t index) const {
    DepthwiseBlock block{};
    block.weights = reinterpret_cast<const std::int8_t*>(weights(index));
    block.offsets = constants_.offsets(index);
    block.multipliers = constants_.multipliers(index);
    block.shifts = constants_.shifts(index);
    block.channels = blocks_[index].channels;
    block.strips = blocks_[index].strips;
    block.rows = static_cast<std::size_t>(rows_);
    block.groups = static_cast<std::size_t>(groups_);
    block.taps = static_cast<std::size_t>(layer_.window.kernel_w);
    block.tap_columns = static_cast<std::size_t>(layer_.window.dilation_w);
    block.stride_columns = static_cast<std::size_t>(layer_.window.stride_w);
    return block;
  }

 private:
  std::size_t strips_of(std::size_t channels) const {
    if (layer_.output.kind != OutputStage::Kind::kUInt8) {
      return 1;
    }
    return channels <= lanes() / 4 ? 4 : channels <= lanes() / 2 ? 2 : 1;
  }

  std::size_t block_bytes() const {
    return static_cast<std::size_t>(groups_ * layer_.window.kernel_w * rows_) * group_bytes();
  }
  std::byte* weights(std::size_t index) const { return memory_.data() + index * block_bytes(); }

  template <typename Weight>
  void pack(std::size_t index) {
    const Window& window = layer_.window;
    const std::size_t group_weights = group_bytes() / sizeof(Weight);
    blocks_[index].for_each_lane([&](std::size_t lane, std::int64_t channel) {
      auto* target = reinterpret_cast<Weight*>(weights(index) + 4 * lane);
      for (std::int64_t group = 0; group < groups_; ++group) {
        for (std::int64_t kw = 0; kw < window.kernel_w; ++kw) {
          for (std::int64_t row = 0; row < rows_; ++row) {
            for (std::int64_t i = 0; i < group_rows_; ++i) {
              const std::int64_t kh = group * group_rows_ + i - row * window.stride_h;
              if (kh >= 0 && kh < window.kernel_h) {
                target[i] = *layer_.weights_of(channel, kh, kw);
              }
            }
            target += group_weights;
          }
        }
      }
    });
  }

  ConvLayer layer_;
  std::int64_t rows_ = 1;    // output rows of a pass
  std::int64_t group_rows_;  // input rows that are interleaved
  std::int64_t groups_ = 1;  // of such rows
  std::vector<LaneBlock> blocks_;
  LaneConstants constants_;
  AlignedBuffer memory_;
};

class BoundDepthwise final : public BoundKernel {
 public:
  BoundDepthwise(const PreparedDepthwise& prepared, const Shape& input, const Shape& output,
                 int threads)
      : prepared_(prepared),
        layer_(prepared.layer()),
        output_(layer_.output),
        x_(input),
        y_(output) {
    const Window& window = layer_.window;
    const std::int64_t column_bytes =
        prepared.groups() * static_cast<std::int64_t>(prepared.group_bytes());
    const std::int64_t window_columns = std::int64_t{window.kernel_w - 1} * window.dilation_w + 1;
    pixels_ = std::clamp<std::int64_t>(
        (kColumnBytes / column_bytes - window_columns) / window.stride_w + 1, 1, y_[2]);
    const std::int64_t columns = (pixels_ - 1) * window.stride_w + window_columns;
    thread_bytes_ = static_cast<std::size_t>(columns * column_bytes);
    scratch_bytes_ = thread_bytes_ * static_cast<std::size_t>(threads);
    outside_.assign(static_cast<std::size_t>(x_[2] * x_[3]),
                    static_cast<std::uint8_t>(layer_.input_zero_point));
    row_count_ = static_cast<std::size_t>(prepared.groups() * prepared.group_rows());
    rows_.resize(row_count_ * static_cast<std::size_t>(threads));
  }

  std::size_t scratch_bytes() const override { return scratch_bytes_; }

  void run(const RunArgs& args) override {
    const auto blocks = static_cast<std::int64_t>(prepared_.blocks().size());
    const std::int64_t image_passes = divide_up(y_[1], prepared_.rows());
    find_residual(args, output_);
    args.pool->run([&](int thread) {
      auto* columns = reinterpret_cast<std::uint8_t*>(args.scratch) +
                      static_cast<std::size_t>(thread) * thread_bytes_;
      const Range slice = slice_of(y_[0] * image_passes * blocks, thread, args.pool->size());
      for (std::int64_t i = slice.begin; i < slice.end; ++i) {
        const std::int64_t pass = i / blocks;
        run_pass(args, pass / image_passes, pass % image_passes * prepared_.rows(),
                 static_cast<std::size_t>(i % blocks), columns,
                 rows_.data() + static_cast<std::size_t>(thread) * row_count_);
      }
    });
  }

 private:
  // The output rows from `first_row` on of one block of channels.
  void run_pass(const RunArgs& args, std::int64_t image, std::int64_t first_row, std::size_t index,
                std::uint8_t* columns, const std::uint8_t** rows) const {
    const Window& window = layer_.window;
    const std::int64_t channel = prepared_.blocks()[index].first_channel;
    const auto* x = static_cast<const std::uint8_t*>(args.inputs[0]);
    const auto used =
        static_cast<std::size_t>(window.kernel_h + (prepared_.rows() - 1) * window.stride_h);
    for (std::size_t i = 0; i < row_count_; ++i) {
      if (i >= used) {
        rows[i] = rows[i - 1];  // its weights are zero, its bytes already in the cache
        continue;
      }
      const std::int64_t row = first_row * window.stride_h - window.pad_top +
                               static_cast<std::int64_t>(i) * window.dilation_h;
      rows[i] = row < 0 || row >= x_[1] ? outside_.data()
                                        : x + (image * x_[1] + row) * x_[2] * x_[3] + channel;
    }
    DepthwiseBlock block = prepared_.block(index);
    block.output = output_;
    block.pixel_stride = static_cast<std::size_t>(y_[3]);
    block.row_stride = static_cast<std::size_t>(y_[2] * y_[3]);
    const auto row_count = static_cast<std::size_t>(std::min(prepared_.rows(), y_[1] - first_row));
    auto* y = static_cast<std::byte*>(args.output) +
              static_cast<std::size_t>((image * y_[1] + first_row) * y_[2] * y_[3] + channel) *
                  layer_.output_size;
    // Strips of equal length; where they overlap, they compute the same outputs.
    const auto strips = static_cast<std::int64_t>(block.strips);
    const std::int64_t distance = y_[2] / strips;
    const std::int64_t length = y_[2] - (strips - 1) * distance;
    block.strip_stride = static_cast<std::size_t>(distance * y_[3]);
    for (std::int64_t first = 0; first < length; first += pixels_) {
      const std::int64_t count = std::min(pixels_, length - first);
      fill_columns(first, count, distance, block, rows, columns);
      layer_.kernels.convolve_depthwise(
          block, columns, static_cast<std::size_t>(count), row_count,
          y + static_cast<std::size_t>(first * y_[3]) * layer_.output_size);
    }
  }

  // The columns under the windows of `count` output pixels of each strip.
  void fill_columns(std::int64_t first, std::int64_t count, std::int64_t distance,
                    const DepthwiseBlock& block, const std::uint8_t** rows,
                    std::uint8_t* columns) const {
    const Window& window = layer_.window;
    const std::int64_t begin = first * window.stride_w - window.pad_left;
    const std::int64_t end = begin + (count - 1) * window.stride_w +
                             std::int64_t{window.kernel_w - 1} * window.dilation_w + 1;
    // The last strip's columns are so much further right.
    const std::int64_t strip_columns = distance * window.stride_w;
    const std::int64_t last = static_cast<std::int64_t>(block.strips - 1) * strip_columns;
    const std::int64_t inside_begin = std::clamp<std::int64_t>(0, begin, end);
    const std::int64_t inside_end = std::clamp(x_[2] - last, inside_begin, end);
    const std::size_t column_bytes = block.groups * prepared_.group_bytes();
    for (std::int64_t column = begin; column < end; ++column) {
      if (column == inside_begin && inside_begin != inside_end) {
        column = inside_end - 1;
      } else {
        fill_border(column, strip_columns, block, rows,
                    columns + static_cast<std::size_t>(column - begin) * column_bytes);
      }
    }
    if (inside_begin == inside_end) {
      return;
    }
    const auto pixel_bytes = static_cast<std::size_t>(x_[3]);
    const std::size_t skipped = static_cast<std::size_t>(inside_begin) * pixel_bytes;
    for (std::size_t i = 0; i < row_count_; ++i) {
      rows[i] += skipped;
    }
    layer_.kernels.interleave(
        rows, block.groups, block.channels, pixel_bytes, block.strips,
        static_cast<std::size_t>(strip_columns) * pixel_bytes,
        static_cast<std::size_t>(inside_end - inside_begin),
        columns + static_cast<std::size_t>(inside_begin - begin) * column_bytes);
    for (std::size_t i = 0; i < row_count_; ++i) {
      rows[i] -= skipped;
    }
  }

  // A column that is outside the image for some strip, or for all.
  void fill_border(std::int64_t column, std::int64_t strip_columns, const DepthwiseBlock& block,
                   const std::uint8_t* const* rows, std::uint8_t* target) const {
    const std::size_t column_bytes = block.groups * prepared_.group_bytes();
    if (block.strips == 1) {
      if (layer_.input_bytes() == 1) {
        std::memset(target, layer_.input_zero_point, column_bytes);
      } else {
        std::fill_n(reinterpret_cast<std::uint16_t*>(target), column_bytes / 2,
                    static_cast<std::uint16_t>(layer_.input_zero_point));
      }
      return;
    }
    const auto group_rows = static_cast<std::size_t>(prepared_.group_rows());
    const std::size_t strip_bytes = prepared_.lanes() / block.strips;
    for (std::size_t group = 0; group < block.groups; ++group) {
      std::uint8_t pixels[kMostGroupRows][kMostLanes];
      std::memset(pixels, layer_.input_zero_point, sizeof(pixels));
      const std::uint8_t* pixel_rows[kMostGroupRows];
      for (std::size_t row = 0; row < group_rows; ++row) {
        pixel_rows[row] = pixels[row];
        for (std::size_t strip = 0; strip < block.strips; ++strip) {
          const std::int64_t source = column + static_cast<std::int64_t>(strip) * strip_columns;
          if (source >= 0 && source < x_[2]) {
            std::memcpy(pixels[row] + strip * strip_bytes,
                        rows[group * group_rows + row] + source * x_[3], block.channels);
          }
        }
      }
      layer_.kernels.interleave(pixel_rows, 1, prepared_.lanes(), 0, 1, 0, 1,
                                target + group * prepared_.group_bytes());
    }
  }

  const PreparedDepthwise& prepared_;
  const ConvLayer& layer_;
  OutputStage output_;
  Shape x_, y_;
  std::int64_t pixels_ = 1;  // output pixels whose columns are interleaved at a time
  std::vector<std::uint8_t> outside_;
  std::size_t row_count_ = 0;              // rows that are interleaved
  std::vector<const std::uint8_t*> rows_;  // per thread
  std::size_t thread_bytes_ = 0, scratch_bytes_ = 0;
};

std::unique_ptr<BoundKernel> PreparedDepthwise::bind(std::span<const Shape> inputs,
                                                     const Shape& output, int threads) const {
  return std::make_unique<BoundDepthwise>(*this, inputs[0], output, threads);
}

}  // namespace

bool is_depthwise(const ConvLayer& layer) {
  return layer.groups > 1 && layer.group_in() == 1 && layer.group_out() == 1;
}

std::unique_ptr<PreparedKernel> prepare_depthwise(const ConvLayer& layer) {
  return std::make_unique<PreparedDepthwise>(layer);
}

}  // namespace pyquant::native
