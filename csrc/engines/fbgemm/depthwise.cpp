#include "engines/fbgemm/depthwise.h"

#include <immintrin.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "runtime/aligned_buffer.h"
#include "runtime/thread_pool.h"

namespace pyquant::fbgemm_engine {
namespace {

constexpr std::int32_t kBlock = 16;  // channels computed together
constexpr std::int32_t kPixels = 4;  // pixels accumulated before they are requantized

// Blocks cover the channels from the left; the last one ends at the last channel and may overlap
// the one before, so that no load passes the end of a pixel.
std::int32_t block_count(std::int32_t channels) { return (channels + kBlock - 1) / kBlock; }
std::int32_t block_start(std::int32_t block, std::int32_t channels) {
  return std::min(block * kBlock, channels - kBlock);
}

// Weights per block and pair of taps: 16 channels of (first tap, second tap) as int16. With an odd
// number of taps the last pair has a zero.
std::vector<std::int16_t> pack_pairs(const Layer& layer) {
  const std::int32_t taps = layer.depth();
  const std::int32_t pairs = (taps + 1) / 2;
  std::vector<std::int16_t> packed;
  packed.reserve(static_cast<std::size_t>(block_count(layer.out_channels) * pairs) * 2 * kBlock);
  for (std::int32_t block = 0; block < block_count(layer.out_channels); ++block) {
    const std::int32_t start = block_start(block, layer.out_channels);
    for (std::int32_t pair = 0; pair < pairs; ++pair) {
      for (std::int32_t c = start; c < start + kBlock; ++c) {
        const std::int8_t* two = layer.weights + std::int64_t{c} * taps + 2 * pair;
        packed.push_back(two[0]);
        packed.push_back(2 * pair + 1 < taps ? two[1] : std::int8_t{0});
      }
    }
  }
  return packed;
}

// The raw accumulators of all channels of one pixel. `taps` are the input pixels under the kernel,
// two for each pair.
__attribute__((target("avx2"))) void accumulate_pixel(const std::uint8_t* const* taps,
                                                      std::int32_t pairs,
                                                      const std::int16_t* weights,
                                                      std::int32_t channels,
                                                      std::int32_t* accumulators) {
  const std::int32_t blocks = block_count(channels);
  for (std::int32_t block = 0; block < blocks; ++block) {
    const std::int32_t start = block_start(block, channels);
    __m256i low = _mm256_setzero_si256(), high = _mm256_setzero_si256();
    for (std::int32_t pair = 0; pair < pairs; ++pair, weights += 2 * kBlock) {
      const __m128i first =
          _mm_loadu_si128(reinterpret_cast<const __m128i*>(taps[2 * pair] + start));
      const __m128i second =
          _mm_loadu_si128(reinterpret_cast<const __m128i*>(taps[2 * pair + 1] + start));
      const __m256i low_x = _mm256_cvtepu8_epi16(_mm_unpacklo_epi8(first, second));
      const __m256i high_x = _mm256_cvtepu8_epi16(_mm_unpackhi_epi8(first, second));
      const auto* w = reinterpret_cast<const __m256i*>(weights);
      low = _mm256_add_epi32(low, _mm256_madd_epi16(low_x, _mm256_loadu_si256(w)));
      high = _mm256_add_epi32(high, _mm256_madd_epi16(high_x, _mm256_loadu_si256(w + 1)));
    }
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(accumulators + start), low);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(accumulators + start + 8), high);
  }
}

class PreparedDepthwise final : public PreparedKernel {
 public:
  PreparedDepthwise(const Layer& layer, OutputStage stage)
      : layer_(layer),
        stage_(std::move(stage)),
        weights_(pack_pairs(layer)),
        outside_(static_cast<std::size_t>(layer.in_channels),
                 static_cast<std::uint8_t>(layer.input_zero_point)) {
    layer_.weights = nullptr;
  }

  std::unique_ptr<BoundKernel> bind(std::span<const StridedShape> inputs,
                                    const StridedShape& output, int threads) const override;

  const Layer& layer() const { return layer_; }
  const OutputStage& stage() const { return stage_; }
  const std::int16_t* weights() const { return weights_.data(); }
  std::int32_t pairs() const { return (layer_.depth() + 1) / 2; }
  // What a pixel outside the image looks like.
  const std::uint8_t* outside() const { return outside_.data(); }

 private:
  Layer layer_;
  OutputStage stage_;
  std::vector<std::int16_t> weights_;
  std::vector<std::uint8_t> outside_;
};

class BoundDepthwise final : public BoundKernel {
 public:
  BoundDepthwise(const PreparedDepthwise& depthwise, const Images& images, int threads)
      : depthwise_(depthwise), images_(images) {
    // Each thread has the tap pointers of one pixel and the accumulators of a few.
    tap_bytes_ =
        align_to_cache_line(static_cast<std::size_t>(depthwise.pairs()) * 2 * sizeof(void*));
    thread_bytes_ =
        tap_bytes_ +
        align_to_cache_line(static_cast<std::size_t>(kPixels * depthwise.stage().channels()) *
                            sizeof(std::int32_t));
    scratch_bytes_ = thread_bytes_ * static_cast<std::size_t>(threads);
  }

  std::size_t scratch_bytes() const override { return scratch_bytes_; }

  void run(const RunArgs& args) override {
    const int threads = args.pool->size();
    args.pool->run([&](int thread) {
      std::byte* scratch = args.scratch + thread_bytes_ * static_cast<std::size_t>(thread);
      const Range rows = slice_of(std::int64_t{images_.batch} * images_.out_h, thread, threads);
      for (std::int64_t row = rows.begin; row < rows.end; ++row) {
        run_row(args, row, scratch);
      }
    });
  }

 private:
  // One row of output pixels; `row` counts through the batch.
  void run_row(const RunArgs& args, std::int64_t row, std::byte* scratch) const {
    const Layer& layer = depthwise_.layer();
    const Window& window = layer.window;
    const OutputStage& stage = depthwise_.stage();
    auto** taps = reinterpret_cast<const std::uint8_t**>(scratch);
    auto* accumulators = reinterpret_cast<std::int32_t*>(scratch + tap_bytes_);
    const auto* image = static_cast<const std::uint8_t*>(args.inputs[0]) +
                        row / images_.out_h * images_.in_h * images_.in_w * layer.in_channels;
    const auto top =
        static_cast<std::int32_t>(row % images_.out_h) * window.stride_h - window.pad_top;
    const std::size_t pixel_bytes =
        static_cast<std::size_t>(stage.channels()) * size_of(stage.dtype());
    auto* output = static_cast<std::byte*>(args.output) +
                   static_cast<std::size_t>(row * images_.out_w) * pixel_bytes;
    taps[2 * depthwise_.pairs() - 1] = depthwise_.outside();  // the odd one
    for (std::int32_t x = 0; x < images_.out_w; x += kPixels) {
      const std::int32_t pixels = std::min(kPixels, images_.out_w - x);
      for (std::int32_t i = 0; i < pixels; ++i) {
        find_taps(image, top, (x + i) * window.stride_w - window.pad_left, taps);
        accumulate_pixel(taps, depthwise_.pairs(), depthwise_.weights(), stage.channels(),
                         accumulators + i * stage.channels());
      }
      stage.write(accumulators, nullptr, pixels,
                  output + static_cast<std::size_t>(x) * pixel_bytes);
    }
  }

  // The input pixels under a kernel whose top left tap is at (top, left).
  void find_taps(const std::uint8_t* image, std::int32_t top, std::int32_t left,
                 const std::uint8_t** taps) const {
    const Layer& layer = depthwise_.layer();
    const Window& window = layer.window;
    const std::int64_t step = std::int64_t{window.dilation_w} * layer.in_channels;
    const bool columns_inside =
        left >= 0 && left + (window.kernel_w - 1) * window.dilation_w < images_.in_w;
    for (std::int32_t kh = 0; kh < window.kernel_h; ++kh) {
      const std::int32_t ih = top + kh * window.dilation_h;
      const std::int64_t first = (std::int64_t{ih} * images_.in_w + left) * layer.in_channels;
      if (ih < 0 || ih >= images_.in_h) {
        taps = std::fill_n(taps, window.kernel_w, depthwise_.outside());
      } else if (columns_inside) {
        for (std::int32_t kw = 0; kw < window.kernel_w; ++kw) {
          *taps++ = image + first + kw * step;
        }
      } else {
        for (std::int32_t kw = 0; kw < window.kernel_w; ++kw) {
          const std::int32_t iw = left + kw * window.dilation_w;
          *taps++ = iw >= 0 && iw < images_.in_w ? image + first + kw * step : depthwise_.outside();
        }
      }
    }
  }

  const PreparedDepthwise& depthwise_;
  Images images_;
  std::size_t tap_bytes_ = 0, thread_bytes_ = 0, scratch_bytes_ = 0;
};

std::unique_ptr<BoundKernel> PreparedDepthwise::bind(std::span<const StridedShape> inputs,
                                                     const StridedShape& output,
                                                     int threads) const {
  return std::make_unique<BoundDepthwise>(*this, Images(layer_, inputs[0], output), threads);
}

}  // namespace

bool is_depthwise(const Layer& layer) {
  return layer.groups == layer.in_channels && layer.groups == layer.out_channels &&
         layer.out_channels >= kBlock;
}

std::unique_ptr<PreparedKernel> prepare_depthwise(const Layer& layer, OutputStage stage) {
  return std::make_unique<PreparedDepthwise>(layer, std::move(stage));
}

}  // namespace pyquant::fbgemm_engine
