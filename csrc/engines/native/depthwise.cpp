// Depthwise convolution. Work is done by passes: one to four output rows of a block of up to 4
// vectors of channels, computed from the same interleaved columns of the image (see
// DepthwiseBlock). Rows outside the image are a row of zero points; columns outside it are filled
// in. Each block takes all passes over a band of the image at once: what they need besides rows is
// prepared once, and stays in the first-level cache.
#include <algorithm>
#include <cstring>

#include "engines/native/convolution.h"
#include "engines/native/divide_up.h"
#include "engines/native/input_copy.h"
#include "engines/native/post_ops.h"
#include "engines/native/weight_memory.h"
#include "runtime/aligned_buffer.h"
#include "runtime/thread_pool.h"

namespace pyquant::native {
namespace {

// Input that is read again for every block of channels.
constexpr std::int64_t kBandBytes = 256 * 1024;
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
    memory_ = WeightMemory(blocks_.size() * block_bytes());
    for (std::size_t i = 0; i < blocks_.size(); ++i) {
      if (layer.input_bytes() == sizeof(std::int8_t)) {
        pack<std::int8_t>(i);
      } else {
        pack<std::int16_t>(i);
      }
      LaneConstants::pack(layer, blocks_[i], weights(i) + weight_bytes());
    }
    layer_.weights = nullptr;
  }

  std::unique_ptr<BoundKernel> bind(std::span<const StridedShape> inputs,
                                    const StridedShape& output, int threads) const override;

  bool takes_strided_input(std::size_t input) const override { return input == 0; }
  bool takes_strided_output() const override { return takes_output_strides(layer_.output); }

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
    const LaneConstants constants(weights(index) + weight_bytes(), blocks_[index],
                                  layer_.output.float_sums);
    block.offsets = constants.offsets;
    block.multipliers = constants.multipliers;
    block.shifts = constants.shifts;
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

  // Of a block: of its weights, and with its constants.
  std::size_t weight_bytes() const {
    return static_cast<std::size_t>(groups_ * layer_.window.kernel_w * rows_) * group_bytes();
  }
  std::size_t block_bytes() const {
    return weight_bytes() + align_to_cache_line(LaneConstants::bytes(blocks_[0]));
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
  WeightMemory memory_;
};

class BoundDepthwise final : public BoundKernel {
 public:
  BoundDepthwise(const PreparedDepthwise& prepared, const StridedShape& input,
                 const StridedShape& output, int threads)
      : prepared_(prepared),
        layer_(prepared.layer()),
        output_(layer_.output),
        x_(input),
        y_(output),
        passes_(divide_up(y_[1], prepared.rows())) {
    const Window& window = layer_.window;
    const std::int64_t column_bytes =
        prepared.groups() * static_cast<std::int64_t>(prepared.group_bytes());
    const std::int64_t window_columns = std::int64_t{window.kernel_w - 1} * window.dilation_w + 1;
    pixels_ = std::clamp<std::int64_t>(
        (kColumnBytes / column_bytes - window_columns) / window.stride_w + 1, 1, y_[2]);
    const std::int64_t columns = (pixels_ - 1) * window.stride_w + window_columns;
    thread_bytes_ = static_cast<std::size_t>(columns * column_bytes);
    scratch_bytes_ = thread_bytes_ * static_cast<std::size_t>(threads);
    outside_ = outside_row(x_[2] * x_.pixel_stride, layer_.input_zero_point);
    row_count_ = static_cast<std::size_t>(prepared.groups() * prepared.group_rows());
    rows_.resize(row_count_ * static_cast<std::size_t>(threads));
    for (std::size_t i = 0; i < prepared.blocks().size(); ++i) {
      plans_.push_back(plan_block(i));
    }
    const std::int64_t pass_bytes = prepared.rows() * window.stride_h * x_[2] * x_.pixel_stride;
    band_passes_ = std::clamp<std::int64_t>(kBandBytes / pass_bytes, 1, passes_);
  }

  std::size_t scratch_bytes() const override { return scratch_bytes_; }

  void run(const RunArgs& args) override {
    find_residual(args, output_);
    for (BlockPlan& plan : plans_) {
      plan.block.output = output_;
    }
    args.pool->run([&](int thread) {
      auto* columns = reinterpret_cast<std::uint8_t*>(args.scratch) +
                      static_cast<std::size_t>(thread) * thread_bytes_;
      const std::int64_t image_passes = passes_ * static_cast<std::int64_t>(plans_.size());
      const Range slice = slice_of(y_[0] * image_passes, thread, args.pool->size());
      for (std::int64_t i = slice.begin; i < slice.end;) {
        const std::int64_t image = i / image_passes;
        const Part part = part_from(i % image_passes);
        const std::int64_t count = std::min(part.passes.end - part.passes.begin, slice.end - i);
        run_block(args, image, plans_[part.block], {part.passes.begin, part.passes.begin + count},
                  columns, rows_.data() + static_cast<std::size_t>(thread) * row_count_);
        i += count;
      }
    });
  }

 private:
  struct BlockPlan {
    DepthwiseBlock block;
    std::int64_t first_channel;
    // Strips of equal length; where they overlap, they compute the same outputs.
    std::int64_t strip_distance, strip_length;
    // Whether all border columns are outside the image for all strips, and always the same ones.
    bool constant_border;
  };

  BlockPlan plan_block(std::size_t index) const {
    BlockPlan plan{};
    plan.block = prepared_.block(index);
    plan.block.pixel_stride = static_cast<std::size_t>(y_.pixel_stride);
    plan.block.row_stride = static_cast<std::size_t>(y_[2] * y_.pixel_stride);
    plan.first_channel = prepared_.blocks()[index].first_channel;
    const auto strips = static_cast<std::int64_t>(plan.block.strips);
    plan.strip_distance = y_[2] / strips;
    plan.strip_length = y_[2] - (strips - 1) * plan.strip_distance;
    plan.block.strip_stride = static_cast<std::size_t>(plan.strip_distance * y_.pixel_stride);
    plan.constant_border = strips == 1 && plan.strip_length <= pixels_;
    return plan;
  }

  // Passes over one block of channels, all in one band.
  struct Part {
    std::size_t block;
    Range passes;
  };

  // What an image's passes are from the given one on: bands, of each all blocks, of each all
  // passes.
  Part part_from(std::int64_t index) const {
    const auto blocks = static_cast<std::int64_t>(plans_.size());
    const std::int64_t begin = index / (band_passes_ * blocks) * band_passes_;
    const std::int64_t end = std::min(begin + band_passes_, passes_);
    const std::int64_t in_band = index - begin * blocks;
    return {static_cast<std::size_t>(in_band / (end - begin)),
            {begin + in_band % (end - begin), end}};
  }

  // Some passes over one block of one image.
  void run_block(const RunArgs& args, std::int64_t image, const BlockPlan& plan, Range passes,
                 std::uint8_t* columns, const std::uint8_t** rows) const {
    const Window& window = layer_.window;
    const auto* x = static_cast<const std::uint8_t*>(args.inputs[0]) +
                    image * x_[1] * x_[2] * x_.pixel_stride + plan.first_channel;
    auto* y =
        static_cast<std::byte*>(args.output) +
        static_cast<std::size_t>(image * y_[1] * y_[2] * y_.pixel_stride + plan.first_channel) *
            layer_.output_size;
    const auto used =
        static_cast<std::size_t>(window.kernel_h + (prepared_.rows() - 1) * window.stride_h);
    for (std::int64_t pass = passes.begin; pass < passes.end; ++pass) {
      const std::int64_t first_row = pass * prepared_.rows();
      std::int64_t row = first_row * window.stride_h - window.pad_top;
      for (std::size_t i = 0; i < row_count_; ++i, row += window.dilation_h) {
        // Of an unused row the weights are zero; the bytes of the last one are in the cache.
        rows[i] = i >= used                 ? rows[i - 1]
                  : row < 0 || row >= x_[1] ? outside_.data()
                                            : x + row * x_[2] * x_.pixel_stride;
      }
      const auto row_count =
          static_cast<std::size_t>(std::min(prepared_.rows(), y_[1] - first_row));
      auto* first_y =
          y + static_cast<std::size_t>(first_row * y_[2] * y_.pixel_stride) * layer_.output_size;
      if (slide(plan, rows, row_count, first_y)) {
        continue;
      }
      for (std::int64_t first = 0; first < plan.strip_length; first += pixels_) {
        const std::int64_t count = std::min(pixels_, plan.strip_length - first);
        fill_columns(first, count, plan, rows, pass == passes.begin || !plan.constant_border,
                     columns);
        layer_.kernels.convolve_depthwise(
            plan.block, columns, static_cast<std::size_t>(count), row_count,
            first_y + static_cast<std::size_t>(first * y_.pixel_stride) * layer_.output_size);
      }
    }
  }

  // The rows of a pass without columns, where the kernels do that.
  bool slide(const BlockPlan& plan, const std::uint8_t* const* rows, std::size_t row_count,
             std::byte* y) const {
    if (layer_.kernels.slide_depthwise == nullptr) {
      return false;
    }
    const DepthwiseRows image = {
        .rows = rows,
        .pixel_bytes = static_cast<std::size_t>(x_.pixel_stride),
        .columns = x_[2],
        .first_column = -std::int64_t{layer_.window.pad_left},
        .strip_columns = plan.strip_distance * layer_.window.stride_w,
        .zero_point = static_cast<std::uint8_t>(layer_.input_zero_point),
    };
    return layer_.kernels.slide_depthwise(plan.block, image,
                                          static_cast<std::size_t>(plan.strip_length), row_count,
                                          reinterpret_cast<std::uint8_t*>(y));
  }

  // The columns under the windows of `count` output pixels of each strip.
  void fill_columns(std::int64_t first, std::int64_t count, const BlockPlan& plan,
                    const std::uint8_t** rows, bool border, std::uint8_t* columns) const {
    const Window& window = layer_.window;
    const DepthwiseBlock& block = plan.block;
    const std::int64_t begin = first * window.stride_w - window.pad_left;
    const std::int64_t end = begin + (count - 1) * window.stride_w +
                             std::int64_t{window.kernel_w - 1} * window.dilation_w + 1;
    // The last strip's columns are so much further right.
    const std::int64_t strip_columns = plan.strip_distance * window.stride_w;
    const std::int64_t last = static_cast<std::int64_t>(block.strips - 1) * strip_columns;
    const std::int64_t inside_begin = std::clamp<std::int64_t>(0, begin, end);
    const std::int64_t inside_end = std::clamp(x_[2] - last, inside_begin, end);
    const std::size_t column_bytes = block.groups * prepared_.group_bytes();
    const auto place = [&](std::int64_t column) {
      return columns + static_cast<std::size_t>(column - begin) * column_bytes;
    };
    if (border) {
      for (std::int64_t column = begin; column < inside_begin; ++column) {
        fill_border(column, strip_columns, block, rows, place(column));
      }
      for (std::int64_t column = inside_end; column < end; ++column) {
        fill_border(column, strip_columns, block, rows, place(column));
      }
    }
    if (inside_begin == inside_end) {
      return;
    }
    const auto pixel_bytes = static_cast<std::size_t>(x_.pixel_stride);
    const std::size_t skipped = static_cast<std::size_t>(inside_begin) * pixel_bytes;
    for (std::size_t i = 0; i < row_count_; ++i) {
      rows[i] += skipped;
    }
    layer_.kernels.interleave(rows, block.groups, block.channels, pixel_bytes, block.strips,
                              static_cast<std::size_t>(strip_columns) * pixel_bytes,
                              static_cast<std::size_t>(inside_end - inside_begin),
                              place(inside_begin));
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
                        rows[group * group_rows + row] + source * x_.pixel_stride, block.channels);
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
  StridedShape x_, y_;
  std::int64_t passes_;           // over a block of an image
  std::int64_t band_passes_ = 1;  // of them in a band
  std::int64_t pixels_ = 1;       // output pixels whose columns are interleaved at a time
  std::vector<BlockPlan> plans_;
  std::vector<std::uint8_t> outside_;
  std::size_t row_count_ = 0;              // rows that are interleaved
  std::vector<const std::uint8_t*> rows_;  // per thread
  std::size_t thread_bytes_ = 0, scratch_bytes_ = 0;
};

std::unique_ptr<BoundKernel> PreparedDepthwise::bind(std::span<const StridedShape> inputs,
                                                     const StridedShape& output,
                                                     int threads) const {
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
