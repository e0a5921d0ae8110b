// Any convolution as an implicit matrix product. The kernel reads the image itself, or, where the
// window reaches over its edge, a copy of some of its rows with a border of zero points. Blocks of
// output channels are the outer loop, so that each weight is read once while the input, or a band
// of it that fits the second-level cache, is read for every block.
#include "engines/native/convolution.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "engines/native/packed_weights.h"
#include "kernels/kernel_table.h"
#include "runtime/thread_pool.h"

namespace pyquant::native {
namespace {

// Input that is read again for every block of channels.
constexpr std::int64_t kBandBytes = 512 * 1024;
// A pointwise layer's pixels are one long row; threads and bands take multiples of this, which
// tiles of 14 and 7 pixels divide.
constexpr std::int64_t kFlatPixels = 28;

std::int64_t divide_up(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

class PreparedConvolution final : public PreparedKernel {
 public:
  explicit PreparedConvolution(const ConvLayer& layer) : layer_(layer), weights_(layer) {
    layer_.weights = nullptr;
  }

  std::unique_ptr<BoundKernel> bind(std::span<const Shape> inputs, const Shape& output,
                                    int threads) const override;

  const ConvLayer& layer() const { return layer_; }
  const PackedWeights& weights() const { return weights_; }

 private:
  ConvLayer layer_;
  PackedWeights weights_;
};

class BoundConvolution final : public BoundKernel {
 public:
  BoundConvolution(const PreparedConvolution& prepared, const Shape& input, const Shape& output,
                   int threads)
      : layer_(prepared.layer()), weights_(prepared.weights()) {
    const Window& window = layer_.window;
    flat_ = window == Window{};
    if (flat_) {
      in_w_ = out_w_ = input.elements() / layer_.in_channels;
    } else {
      in_h_ = input[1];
      in_w_ = input[2];
      out_h_ = output[1];
      out_w_ = output[2];
    }
    units_ = flat_ ? divide_up(out_w_, kFlatPixels) : output[0] * out_h_;

    const bool padded = window.pad_top != 0 || window.pad_left != 0 || window.pad_bottom != 0 ||
                        window.pad_right != 0;
    // The last pixel's run may be read up to 3 bytes beyond its end, which may be the image's.
    copied_ = padded || weights_.run_bytes() % 4 != 0;
    row_pixels_ = copied_ && !flat_ ? (out_w_ - 1) * window.stride_w +
                                          (window.kernel_w - 1) * window.dilation_w + 1
                                    : in_w_;
    row_bytes_ = row_pixels_ * layer_.in_channels;
    for (std::int64_t run = 0; run < weights_.runs(); ++run) {
      const std::int64_t kh = weights_.runs_are_rows() ? run : run / window.kernel_w;
      const std::int64_t kw = weights_.runs_are_rows() ? 0 : run % window.kernel_w;
      taps_.push_back(kh * window.dilation_h * row_bytes_ +
                      kw * window.dilation_w * layer_.in_channels);
    }
    layout_ = {taps_.data(),
               taps_.size(),
               weights_.steps(),
               window.stride_w * layer_.in_channels,
               static_cast<std::size_t>(layer_.out_channels),
               layer_.output};
    split_blocks_ = threads > 1 && prefers_blocks(threads);
    plan_bands(threads);
  }

  std::size_t scratch_bytes() const override { return scratch_bytes_; }

  void run(const RunArgs& args) override {
    args.pool->run([&](int thread) {
      const auto blocks = static_cast<std::int64_t>(weights_.blocks().size());
      const int threads = args.pool->size();
      const Slice units = split_blocks_ ? Slice{0, units_} : slice_of(units_, thread, threads);
      const Slice mine = split_blocks_ ? slice_of(blocks, thread, threads) : Slice{0, blocks};
      if (mine.begin == mine.end) {
        return;
      }
      std::byte* copy = args.scratch + static_cast<std::size_t>(thread) * copy_bytes_;
      for (std::int64_t begin = units.begin; begin < units.end;) {
        const Slice band = {begin, band_end(begin, units.end)};
        const auto* x = static_cast<const std::uint8_t*>(args.inputs[0]) + band_input(band.begin);
        if (copied_) {
          auto* target = reinterpret_cast<std::uint8_t*>(copy);
          flat_ ? copy_flat(args, band, target) : copy_rows(args, band, target);
          x = target;
        }
        for (std::int64_t block = mine.begin; block < mine.end; ++block) {
          run_block(static_cast<std::size_t>(block), band, x, args.output);
        }
        begin = band.end;
      }
    });
  }

 private:
  // Whether threads take blocks of channels rather than rows: where that balances better, or else
  // where it is the weights that they should not both read.
  bool prefers_blocks(int threads) const {
    const auto blocks = static_cast<std::int64_t>(weights_.blocks().size());
    const auto imbalance = [&](std::int64_t count) {
      return static_cast<double>(divide_up(count, threads) * threads) / static_cast<double>(count);
    };
    const double by_blocks = imbalance(blocks);
    const double by_units = imbalance(units_);
    if (std::abs(by_blocks - by_units) > 0.03) {
      return by_blocks < by_units;
    }
    const std::int64_t input_bytes = flat_ ? out_w_ * layer_.in_channels : units_ * row_bytes_;
    return static_cast<std::int64_t>(weights_.bytes()) > input_bytes;
  }

  void plan_bands(int threads) {
    const Window& window = layer_.window;
    const std::int64_t unit_bytes =
        flat_ ? kFlatPixels * layer_.in_channels : window.stride_h * row_bytes_;
    const std::int64_t most_units = flat_ ? units_ : out_h_;
    band_units_ = most_units;
    if (copied_ || weights_.blocks().size() > 1) {
      band_units_ = std::clamp<std::int64_t>(kBandBytes / unit_bytes, 1, most_units);
    }
    if (!copied_) {
      return;
    }
    const std::int64_t bytes = flat_ ? band_units_ * unit_bytes
                                     : ((band_units_ - 1) * window.stride_h +
                                        (window.kernel_h - 1) * window.dilation_h + 1) *
                                           row_bytes_;
    // With room for the excess of the last run.
    copy_bytes_ = (static_cast<std::size_t>(bytes) + 4 + 63) / 64 * 64;
    scratch_bytes_ = copy_bytes_ * static_cast<std::size_t>(threads);
  }

  // A band does not reach into the next image.
  std::int64_t band_end(std::int64_t begin, std::int64_t end) const {
    const std::int64_t limit = flat_ ? end : (begin / out_h_ + 1) * out_h_;
    return std::min({begin + band_units_, limit, end});
  }

  // Where the input of a unit begins, if it is not copied.
  std::int64_t band_input(std::int64_t unit) const {
    if (flat_) {
      return unit * kFlatPixels * layer_.in_channels;
    }
    const std::int64_t image = unit / out_h_;
    return (image * in_h_ + unit % out_h_ * layer_.window.stride_h) * in_w_ * layer_.in_channels;
  }

  Slice flat_pixels(Slice band) const {
    return {band.begin * kFlatPixels, std::min(band.end * kFlatPixels, out_w_)};
  }

  void copy_flat(const RunArgs& args, Slice band, std::uint8_t* copy) const {
    const Slice pixels = flat_pixels(band);
    std::memcpy(
        copy, static_cast<const std::uint8_t*>(args.inputs[0]) + pixels.begin * layer_.in_channels,
        static_cast<std::size_t>((pixels.end - pixels.begin) * layer_.in_channels));
  }

  // The rows under the windows of a band of output rows, with their borders.
  void copy_rows(const RunArgs& args, Slice band, std::uint8_t* copy) const {
    const Window& window = layer_.window;
    const std::int64_t image = band.begin / out_h_;
    const std::int64_t first = band.begin % out_h_ * window.stride_h - window.pad_top;
    const std::int64_t rows = (band.end - band.begin - 1) * window.stride_h +
                              (window.kernel_h - 1) * window.dilation_h + 1;
    const std::int64_t left = std::min<std::int64_t>(window.pad_left, row_pixels_);
    const std::int64_t inside = std::min(in_w_, row_pixels_ - left);
    const auto bytes = [&](std::int64_t pixels) {
      return static_cast<std::size_t>(pixels * layer_.in_channels);
    };
    const auto* x = static_cast<const std::uint8_t*>(args.inputs[0]);
    for (std::int64_t row = first; row < first + rows; ++row, copy += row_bytes_) {
      if (row < 0 || row >= in_h_) {
        std::memset(copy, layer_.input_zero_point, bytes(row_pixels_));
        continue;
      }
      std::memset(copy, layer_.input_zero_point, bytes(left));
      std::memcpy(copy + bytes(left), x + bytes((image * in_h_ + row) * in_w_), bytes(inside));
      std::memset(copy + bytes(left + inside), layer_.input_zero_point,
                  bytes(row_pixels_ - left - inside));
    }
  }

  void run_block(std::size_t index, Slice band, const std::uint8_t* x, void* output) const {
    const WeightBlock& weights = weights_.blocks()[index];
    ConvBlock block = weights_.block(index);
    auto* y = static_cast<std::byte*>(output) +
              static_cast<std::size_t>(weights.lanes.first_channel) * layer_.output_size;
    const std::size_t pixel_bytes =
        static_cast<std::size_t>(layer_.out_channels) * layer_.output_size;
    x += weights.first_input;
    if (flat_) {
      const Slice pixels = flat_pixels(band);
      kernels_.convolve(layout_, block, x, static_cast<std::size_t>(pixels.end - pixels.begin),
                        y + static_cast<std::size_t>(pixels.begin) * pixel_bytes);
      return;
    }
    for (std::int64_t row = band.begin; row < band.end; ++row) {
      kernels_.convolve(layout_, block, x, static_cast<std::size_t>(out_w_),
                        y + static_cast<std::size_t>(row * out_w_) * pixel_bytes);
      x += layer_.window.stride_h * row_bytes_;
    }
  }

  const KernelTable& kernels_ = kernel_table();
  const ConvLayer& layer_;
  const PackedWeights& weights_;
  std::int64_t in_h_ = 1, in_w_ = 1, out_h_ = 1, out_w_ = 1;
  bool flat_ = false;       // one row of pixels that are independent of each other
  std::int64_t units_ = 0;  // of work: output rows, or kFlatPixels pixels
  bool copied_ = false;     // the kernel reads a copy of the input
  std::int64_t row_pixels_ = 0, row_bytes_ = 0;  // of what the kernel reads
  std::vector<std::ptrdiff_t> taps_;
  ConvLayout layout_{};
  bool split_blocks_ = false;  // between threads, else units are
  std::int64_t band_units_ = 0;
  std::size_t copy_bytes_ = 0, scratch_bytes_ = 0;
};

std::unique_ptr<BoundKernel> PreparedConvolution::bind(std::span<const Shape> inputs,
                                                       const Shape& output, int threads) const {
  return std::make_unique<BoundConvolution>(*this, inputs[0], output, threads);
}

}  // namespace

std::unique_ptr<PreparedKernel> prepare_convolution(const ConvLayer& layer) {
  return std::make_unique<PreparedConvolution>(layer);
}

}  // namespace pyquant::native
