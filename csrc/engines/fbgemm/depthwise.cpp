#include "engines/fbgemm/depthwise.h"

#include <immintrin.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "engines/fbgemm/output_stage.h"
#include "runtime/thread_pool.h"

namespace pyquant::fbgemm_engine {
namespace {

constexpr std::int32_t kBlock = 16;  // channels computed together

// Blocks cover the channels from the left; the last one ends at the last channel and may overlap the
// one before, so that no load passes the end of a pixel.
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
  packed.reserve(std::size_t(block_count(layer.out_channels)) * std::size_t(pairs) * 2 * kBlock);
  for (std::int32_t block = 0; block < block_count(layer.out_channels); ++block) {
    const std::int32_t start = block_start(block, layer.out_channels);
    for (std::int32_t pair = 0; pair < pairs; ++pair) {
      for (std::int32_t c = start; c < start + kBlock; ++c) {
        const std::int8_t* channel = layer.weights + std::int64_t{c} * taps + 2 * pair;
        packed.push_back(channel[0]);
        packed.push_back(2 * pair + 1 < taps ? channel[1] : std::int8_t{0});
      }
    }
  }
  return packed;
}

// Raw accumulators of all channels of one pixel. `taps` holds the input pixels under the kernel, an
// even number.
__attribute__((target("avx2"))) void accumulate_pixel(const std::uint8_t* const* taps,
                                                      std::int32_t pairs,
                                                      const std::int16_t* weights,
                                                      std::int32_t channels,
                                                      std::int32_t* accumulators) {
  const std::int32_t blocks = block_count(channels);
  for (std::int32_t block = 0; block < blocks; ++block) {
    const std::int32_t start = block_start(block, channels);
    __m256i low = _mm256_setzero_si256(), high = _mm256_setzero_si256();
    for (std::int32_t pair = 0; pair < pairs; ++pair) {
      const __m128i first =
          _mm_loadu_si128(reinterpret_cast<const __m128i*>(taps[2 * pair] + start));
      const __m128i second =
          _mm_loadu_si128(reinterpret_cast<const __m128i*>(taps[2 * pair + 1] + start));
      const auto* w = reinterpret_cast<const __m256i*>(weights);
      weights += 2 * kBlock;
      low = _mm256_add_epi32(
          low, _mm256_madd_epi16(_mm256_cvtepu8_epi16(_mm_unpacklo_epi8(first, second)),
                                 _mm256_loadu_si256(w)));
      high = _mm256_add_epi32(
          high, _mm256_madd_epi16(_mm256_cvtepu8_epi16(_mm_unpackhi_epi8(first, second)),
                                  _mm256_loadu_si256(w + 1)));
    }
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(accumulators + start), low);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(accumulators + start + 8), high);
  }
}

class PreparedDepthwise final : public PreparedKernel {
 public:
  PreparedDepthwise(const Layer& layer, const Operator& op)
      : layer_(layer),
        stage_(op),
        weights_(pack_pairs(layer)),
        outside_(std::size_t(layer.in_channels), std::uint8_t(layer.input_zero_point)) {
    layer_.weights = nullptr;
  }

  std::unique_ptr<BoundKernel> bind(std::span<const Shape> inputs, const Shape& output,
                                    int threads) const override;

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
    // Tap pointers and the accumulators of one pixel per thread, on cache lines of their own.
    tap_bytes_ = (std::size_t(depthwise.pairs()) * 2 * sizeof(void*) + 63) / 64 * 64;
    thread_bytes_ = tap_bytes_ + (std::size_t(depthwise.layer().out_channels) * 4 + 63) / 64 * 64;
    scratch_bytes_ = thread_bytes_ * std::size_t(threads);
  }

  std::size_t scratch_bytes() const override { return scratch_bytes_; }

  void run(const RunArgs& args) override {
    const int threads = args.pool->size();
    args.pool->run([&](int thread) {
      const Slice rows =
          slice_of(std::int64_t{images_.batch} * images_.out_h, thread, threads);
      for (std::int64_t row = rows.begin; row < rows.end; ++row) {
        run_row(args, row, args.scratch + thread_bytes_ * std::size_t(thread));
      }
    });
  }

 private:
  void run_row(const RunArgs& args, std::int64_t row, std::byte* scratch) const {
    const Layer& layer = depthwise_.layer();
    const Window& window = layer.window;
    auto** taps = reinterpret_cast<const std::uint8_t**>(scratch);
    auto* accumulators = reinterpret_cast<std::int32_t*>(scratch + tap_bytes_);
    const auto* image = static_cast<const std::uint8_t*>(args.inputs[0]) +
                        row / images_.out_h * images_.in_h * images_.in_w * layer.in_channels;
    const auto top =
        static_cast<std::int32_t>(row % images_.out_h) * window.stride_h - window.pad_top;
    const std::size_t out_pixel = std::size_t(layer.out_channels) * size_of(depthwise_.stage().dtype());
    auto* output = static_cast<std::byte*>(args.output) + std::size_t(row * images_.out_w) * out_pixel;
    taps[2 * depthwise_.pairs() - 1] = depthwise_.outside();
    for (std::int32_t x = 0; x < images_.out_w; ++x) {
      const std::int32_t left = x * window.stride_w - window.pad_left;
      const std::uint8_t** tap = taps;
      for (std::int32_t kh = 0; kh < window.kernel_h; ++kh) {
        const std::int32_t ih = top + kh * window.dilation_h;
        const bool inside_row = ih >= 0 && ih < images_.in_h;
        for (std::int32_t kw = 0; kw < window.kernel_w; ++kw) {
          const std::int32_t iw = left + kw * window.dilation_w;
          *tap++ = inside_row && iw >= 0 && iw < images_.in_w
                       ? image + (std::int64_t{ih} * images_.in_w + iw) * layer.in_channels
                       : depthwise_.outside();
        }
      }
      accumulate_pixel(taps, depthwise_.pairs(), depthwise_.weights(), layer.out_channels,
                       accumulators);
      depthwise_.stage().write(accumulators, nullptr, 1, output + std::size_t(x) * out_pixel);
    }
  }

  const PreparedDepthwise& depthwise_;
  Images images_;
  std::size_t tap_bytes_ = 0, thread_bytes_ = 0, scratch_bytes_ = 0;
};

std::unique_ptr<BoundKernel> PreparedDepthwise::bind(std::span<const Shape> inputs,
                                                     const Shape& output, int threads) const {
  return std::make_unique<BoundDepthwise>(*this, Images(layer_, inputs[0], output), threads);
}

}  // namespace

bool is_depthwise(const Layer& layer) {
  return layer.groups == layer.in_channels && layer.groups == layer.out_channels &&
         layer.out_channels >= kBlock;
}

std::unique_ptr<PreparedKernel> prepare_depthwise(const Layer& layer, const Operator& op) {
  return std::make_unique<PreparedDepthwise>(layer, op);
}

}  // namespace pyquant::fbgemm_engine
