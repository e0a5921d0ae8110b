// Any convolution as an implicit matrix product. The kernel reads the image itself where it can,
// else a copy of a part of it, most often some rows with a border of zero points. Blocks of output
// channels are the outer loop, so that each weight is read once while the input, or a band
// of it that fits the second-level cache, is read for every block.
#include "engines/native/convolution.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "engines/native/divide_up.h"
#include "engines/native/input_copy.h"
#include "engines/native/packed_weights.h"
#include "engines/native/post_ops.h"
#include "runtime/aligned_buffer.h"
#include "runtime/thread_pool.h"

namespace pyquant::native {
namespace {

// Input that is read again for every block of channels.
constexpr std::int64_t kBandBytes = 512 * 1024;
// Columns that are read for one block, once.
constexpr std::int64_t kColumnBandBytes = 64 * 1024;
// A pointwise layer's pixels are one long row; threads and bands take multiples of this, which
// tiles of 14 and 7 pixels divide.
constexpr std::int64_t kFlatPixels = 28;
// Rows of fewer pixels are gathered where enough output channels make up for the copying.
constexpr std::int64_t kNarrowRow = 12;
constexpr std::int64_t kGatherChannels = 256;

class PreparedConvolution final : public PreparedKernel {
 public:
  explicit PreparedConvolution(const ConvLayer& layer) : layer_(layer), weights_(layer) {
    layer_.weights = nullptr;
  }

  std::unique_ptr<BoundKernel> bind(std::span<const StridedShape> inputs,
                                    const StridedShape& output, int threads) const override;

  bool takes_strided_input(std::size_t input) const override {
    return input == 0 && weights_.runs() != PackedWeights::Runs::kWindow;
  }
  bool takes_strided_output() const override { return takes_output_strides(layer_.output); }

  const ConvLayer& layer() const { return layer_; }
  const PackedWeights& weights() const { return weights_; }

 private:
  ConvLayer layer_;
  PackedWeights weights_;
};

class BoundConvolution final : public BoundKernel {
 public:
  BoundConvolution(const PreparedConvolution& prepared, const StridedShape& input,
                   const StridedShape& output, int threads)
      : layer_(prepared.layer()), weights_(prepared.weights()) {
    images_.window = layer_.window;
    images_.channels = layer_.in_channels;
    images_.pixel_stride = input.pixel_stride;
    images_.zero_point = layer_.input_zero_point;
    const bool pointwise = layer_.window == Window{};
    const std::int64_t pixels = output.elements() / layer_.out_channels;
    if (pointwise) {
      images_.in_w = images_.out_w = pixels;
    } else {
      images_.images = input[0];
      images_.in_h = input[1];
      images_.in_w = input[2];
      images_.out_h = output[1];
      images_.out_w = output[2];
    }
    reading_ = choose_reading(pixels);
    flat_ = reading_ == Reading::kGathered || reading_ == Reading::kWidened ||
            (pointwise && reading_ == Reading::kInPlace);
    pixels_ = flat_ ? pixels : images_.out_w;
    units_ = flat_ ? divide_up(pixels, kFlatPixels) : pixels / images_.out_w;
    plan_layout(static_cast<std::size_t>(output.pixel_stride));
    blocks_.resize(weights_.blocks().size() * static_cast<std::size_t>(threads));
    split_blocks_ = threads > 1 && prefers_blocks(threads);
    plan_bands(threads);
  }

  std::size_t scratch_bytes() const override { return scratch_bytes_; }

  std::optional<std::size_t> overwritable_input() const override {
    const bool adds = layer_.output.post_op == OutputStage::PostOp::kAdd;
    return adds && fills_vectors() ? std::optional(kResidualInput) : std::nullopt;
  }

  std::span<const std::byte> first_weights() const override { return weights_.block_memory(0); }
  void fetch(std::span<const std::byte> next_weights) override { next_weights_ = next_weights; }

  void run(const RunArgs& args) override {
    find_residual(args, layout_.output);
    args.pool->run([&](int thread) {
      const auto blocks = static_cast<std::int64_t>(weights_.blocks().size());
      const int threads = args.pool->size();
      const Range units = split_blocks_ ? Range{0, units_} : slice_of(units_, thread, threads);
      const Range mine = split_blocks_ ? slice_of(blocks, thread, threads) : Range{0, blocks};
      if (mine.begin == mine.end) {
        return;
      }
      auto* copy = reinterpret_cast<std::uint8_t*>(args.scratch) +
                   static_cast<std::size_t>(thread) * copy_bytes_;
      const std::span own = {blocks_.data() + thread * blocks + mine.begin,
                             blocks_.data() + thread * blocks + mine.end};
      for (std::int64_t begin = units.begin; begin < units.end;) {
        const Range band = {begin, band_end(begin, units.end)};
        const std::uint8_t* x =
            read_band(static_cast<const std::uint8_t*>(args.inputs[0]), band, copy);
        run_blocks(own, mine.begin, band, x, args.output, band.end == units.end);
        begin = band.end;
      }
    });
  }

 private:
  // Whether no store of a pixel's channels is masked. In the place of an operand, loading that of
  // the next pixel would wait for such a store, whose masked lanes lie there.
  bool fills_vectors() const {
    return std::ranges::all_of(weights_.blocks(), [](const WeightBlock& block) {
      const LaneBlock& lanes = block.lanes;
      return lanes.channels == lanes.lanes() && std::has_single_bit(lanes.vectors);
    });
  }

  // What the kernel reads.
  enum class Reading : std::uint8_t {
    kInPlace,     // the image
    kWidened,     // the image, widened
    kCopiedRows,  // a copy of some rows, with a border
    kColumns,     // for each output row a copy of the rows under it, column by column
    kGathered,    // a copy of all inputs of each pixel
  };

  Reading choose_reading(std::int64_t pixels) const {
    const Window& window = layer_.window;
    const bool padded = window.pad_top != 0 || window.pad_left != 0 || window.pad_bottom != 0 ||
                        window.pad_right != 0;
    const bool pointwise = window == Window{};
    if (weights_.runs() == PackedWeights::Runs::kWindow) {
      return Reading::kColumns;
    }
    // Narrow images waste parts of tiles at the end of each row; gathered pixels are one long row.
    const bool narrow = !pointwise && images_.out_w < kNarrowRow && pixels > images_.out_w &&
                        layer_.out_channels >= kGatherChannels;
    // The last pixel's run may be read up to 3 bytes beyond its end, which may be the image's.
    const bool overruns = weights_.overruns();
    if (weights_.one_group() && (narrow || (pointwise && overruns))) {
      return Reading::kGathered;
    }
    // Neighbouring pixels are one run.
    const bool gaps = images_.pixel_stride != images_.channels && window.kernel_w != 1 &&
                      weights_.runs() == PackedWeights::Runs::kRows;
    if (layer_.input_bytes() == 1) {
      return padded || overruns || gaps ? Reading::kCopiedRows : Reading::kInPlace;
    }
    if (pointwise && !overruns) {
      return Reading::kWidened;
    }
    // Of a single pixel under each window, strides may skip many.
    const bool skips = layer_.kernel_pixels() == 1 && weights_.one_group();
    return skips ? Reading::kGathered : Reading::kCopiedRows;
  }

  void plan_layout(std::size_t output_stride) {
    const Window& window = layer_.window;
    layout_.steps = weights_.steps();
    layout_.output_stride = output_stride;
    layout_.output = layer_.output;
    const std::int64_t input_bytes = layer_.in_channels * layer_.input_bytes();
    if (reading_ == Reading::kColumns) {
      outside_ = outside_row(images_.in_w * input_bytes, images_.zero_point);
      const std::int64_t column_bytes = window.kernel_h * input_bytes;
      row_bytes_ = images_.row_pixels() * column_bytes;
      layout_.pixel_stride = window.stride_w * column_bytes;
      layout_.row_stride = row_bytes_;
      taps_.push_back(0);
    } else if (reading_ == Reading::kGathered) {
      // All runs of a pixel are one.
      layout_.steps *= static_cast<std::size_t>(weights_.run_count());
      layout_.pixel_stride = static_cast<std::ptrdiff_t>(4 * layout_.steps);
      taps_.push_back(0);
    } else {
      const bool in_place = reading_ == Reading::kInPlace;
      const bool copied_rows = reading_ == Reading::kCopiedRows;
      const std::int64_t pixel_bytes = in_place ? images_.pixel_stride : input_bytes;
      row_bytes_ = pixel_bytes * (copied_rows ? images_.row_pixels() : images_.in_w);
      layout_.pixel_stride = window.stride_w * pixel_bytes;
      layout_.row_stride = window.stride_h * row_bytes_;
      for (std::int64_t run = 0; run < weights_.run_count(); ++run) {
        const std::int64_t kh = run * weights_.run_pixels() / window.kernel_w;
        const std::int64_t kw = run * weights_.run_pixels() % window.kernel_w;
        taps_.push_back(kh * window.dilation_h * row_bytes_ + kw * window.dilation_w * pixel_bytes);
      }
    }
    layout_.taps = taps_.data();
    layout_.tap_count = taps_.size();
  }

  // Input bytes that one more unit reads.
  std::int64_t unit_bytes() const {
    return flat_ ? kFlatPixels * layout_.pixel_stride : layout_.row_stride;
  }

  // Whether threads take blocks of channels rather than rows: where that balances better, or else
  // where it is the weights that they should not both read.
  bool prefers_blocks(int threads) const {
    const auto imbalance = [&](std::int64_t count) {
      return static_cast<double>(divide_up(count, threads) * threads) / static_cast<double>(count);
    };
    const double by_blocks = imbalance(static_cast<std::int64_t>(weights_.blocks().size()));
    const double by_units = imbalance(units_);
    if (std::abs(by_blocks - by_units) > 0.03) {
      return by_blocks < by_units;
    }
    return static_cast<std::int64_t>(weights_.bytes()) > units_ * unit_bytes();
  }

  void plan_bands(int threads) {
    const bool copied = reading_ != Reading::kInPlace;
    const std::int64_t most_units = flat_ ? units_ : images_.out_h;
    band_units_ = most_units;
    if (copied || weights_.blocks().size() > 1) {
      const bool read_once = reading_ == Reading::kColumns && weights_.blocks().size() == 1;
      const std::int64_t bytes = read_once ? kColumnBandBytes : kBandBytes;
      band_units_ = std::clamp<std::int64_t>(bytes / unit_bytes(), 1, most_units);
    }
    if (!copied) {
      return;
    }
    const std::int64_t bytes = reading_ == Reading::kCopiedRows
                                   ? images_.input_rows(band_units_) * row_bytes_
                                   : band_units_ * unit_bytes();
    const std::size_t run = weights_.steps() * 4;  // the last one may exceed the copy
    copy_bytes_ = align_to_cache_line(static_cast<std::size_t>(bytes) + run);
    scratch_bytes_ = copy_bytes_ * static_cast<std::size_t>(threads);
  }

  // A band of rows does not reach into the next image.
  std::int64_t band_end(std::int64_t begin, std::int64_t end) const {
    const std::int64_t limit = flat_ ? end : (begin / images_.out_h + 1) * images_.out_h;
    return std::min({begin + band_units_, limit, end});
  }

  Range flat_pixels(Range band) const {
    return {band.begin * kFlatPixels, std::min(band.end * kFlatPixels, pixels_)};
  }

  // What the kernel reads for the first pixel of a band; the rest follows it.
  const std::uint8_t* read_band(const std::uint8_t* x, Range band, std::uint8_t* copy) const {
    if (reading_ != Reading::kInPlace) {
      if (layer_.input_bytes() == 1) {
        copy_band(x, band, copy);
      } else {
        copy_band(x, band, reinterpret_cast<std::uint16_t*>(copy));
      }
      return copy;
    }
    if (flat_) {
      return x + flat_pixels(band).begin * images_.pixel_stride;
    }
    const std::int64_t image = band.begin / images_.out_h;
    const std::int64_t row = band.begin % images_.out_h * layer_.window.stride_h;
    return x + (image * images_.in_h + row) * row_bytes_;
  }

  template <typename Input>
  void copy_band(const std::uint8_t* x, Range band, Input* copy) const {
    if (reading_ == Reading::kCopiedRows) {
      copy_rows(images_, x, band, copy);
      return;
    }
    if constexpr (sizeof(Input) == 1) {
      if (reading_ == Reading::kColumns) {
        gather_columns(images_, layer_.kernels, x, outside_.data(), band, copy);
        return;
      }
    }
    const Range pixels = flat_pixels(band);
    if (reading_ == Reading::kWidened) {
      copy_pixels(images_, x + pixels.begin * images_.pixel_stride, pixels.end - pixels.begin,
                  copy);
      return;
    }
    gather(images_,
           {weights_.run_count(), weights_.run_pixels(), weights_.run_inputs(),
            static_cast<std::int64_t>(weights_.steps() * layer_.geometry().step_inputs)},
           x, pixels, copy);
  }

  // blocks: to be filled with those from `first` on.
  void run_blocks(std::span<ConvBlock> blocks, std::int64_t first, Range band,
                  const std::uint8_t* x, void* output, bool last) const {
    const Range pixels =
        flat_ ? flat_pixels(band) : Range{band.begin * pixels_, band.end * pixels_};
    const std::int64_t rows = flat_ ? 1 : band.end - band.begin;
    auto index = static_cast<std::size_t>(first);
    for (ConvBlock& block : blocks) {
      const WeightBlock& weights = weights_.blocks()[index];
      block = weights_.block(index++);
      block.x = x + weights.first_input * layer_.input_bytes();
      block.y = static_cast<std::byte*>(output) +
                (static_cast<std::size_t>(pixels.begin) * layout_.output_stride +
                 static_cast<std::size_t>(weights.lanes.first_channel)) *
                    layer_.output_size;
    }
    if (last && !next_weights_.empty()) {
      blocks.back().prefetch = reinterpret_cast<const std::int8_t*>(next_weights_.data());
      blocks.back().prefetch_end = blocks.back().prefetch + next_weights_.size();
    }
    layer_.kernels.convolve(layout_, blocks.data(), blocks.size(), static_cast<std::size_t>(rows),
                            static_cast<std::size_t>((pixels.end - pixels.begin) / rows));
  }

  const ConvLayer& layer_;
  const PackedWeights& weights_;
  ConvImages images_;
  Reading reading_ = Reading::kInPlace;
  bool flat_ = false;                  // one row of pixels that are independent of each other
  std::int64_t pixels_ = 0;            // in a row
  std::int64_t units_ = 0;             // of work: rows, or kFlatPixels pixels
  std::int64_t row_bytes_ = 0;         // of what the kernel reads, if not gathered
  std::vector<std::uint8_t> outside_;  // a row of zero points, for kColumns
  std::vector<std::ptrdiff_t> taps_;
  ConvLayout layout_{};
  std::vector<ConvBlock> blocks_;  // [thread][block]
  bool split_blocks_ = false;      // between threads, else units are
  std::int64_t band_units_ = 0;
  std::size_t copy_bytes_ = 0, scratch_bytes_ = 0;
  std::span<const std::byte> next_weights_;
};

std::unique_ptr<BoundKernel> PreparedConvolution::bind(std::span<const StridedShape> inputs,
                                                       const StridedShape& output,
                                                       int threads) const {
  return std::make_unique<BoundConvolution>(*this, inputs[0], output, threads);
}

}  // namespace

std::unique_ptr<PreparedKernel> prepare_convolution(const ConvLayer& layer) {
  return std::make_unique<PreparedConvolution>(layer);
}

}  // namespace pyquant::native
