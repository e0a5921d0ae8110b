#include "engines/fbgemm/gemm.h"

#include <fbgemm/Fbgemm.h>

#include <algorithm>
#include <vector>

#include "engines/fbgemm/blocking.h"
#include "engines/fbgemm/output_stage.h"
#include "engines/fbgemm/saturation.h"
#include "runtime/thread_pool.h"

namespace pyquant::fbgemm_engine {
namespace {

using PackedInput = fbgemm::PackAWithIm2Col<std::uint8_t, std::int32_t, 2>;
using PackedWeights = fbgemm::PackBMatrix<std::int8_t, std::int32_t>;

constexpr std::size_t kAlignment = 64;
constexpr std::size_t aligned(std::size_t bytes) {
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

// A layer with its groups merged by `factor`: the weights between what were different groups are
// zero.
struct MergedGroups {
  std::int32_t groups;
  std::int32_t depth;
  std::vector<std::int8_t> weights;  // [out_channels, depth]
};

MergedGroups merge_groups(const Layer& layer, std::int32_t factor) {
  const std::int32_t group_in = layer.in_channels / layer.groups;
  const std::int32_t group_out = layer.out_channels / layer.groups;
  const std::int32_t taps = layer.window.kernel_h * layer.window.kernel_w;
  MergedGroups merged{layer.groups / factor, taps * group_in * factor, {}};
  merged.weights.resize(std::size_t(layer.out_channels) * std::size_t(merged.depth));
  for (std::int32_t o = 0; o < layer.out_channels; ++o) {
    const std::int32_t member = o / group_out % factor;
    const std::int8_t* source = layer.weights + std::int64_t{o} * layer.depth();
    std::int8_t* target = merged.weights.data() + std::int64_t{o} * merged.depth;
    for (std::int32_t tap = 0; tap < taps; ++tap) {
      std::copy_n(source + tap * group_in, group_in,
                  target + (tap * factor + member) * group_in);
    }
  }
  return merged;
}

// FBGEMM rounds the columns of each group up to NR_MIN, so that merging groups until they fill it
// costs no multiplications and saves packing.
std::int32_t merge_factor(const Layer& layer, std::int32_t columns_min) {
  const std::int32_t group_out = layer.out_channels / layer.groups;
  std::int32_t factor = 1;
  while (factor * group_out < columns_min && factor < layer.groups) {
    do {
      ++factor;
    } while (layer.groups % factor != 0);
  }
  return factor;
}

class PreparedGemm final : public PreparedKernel {
 public:
  PreparedGemm(const Layer& layer, const Operator& op)
      : layer_(layer), stage_(op), blocking_(blocking_factors(layer)) {
    const MergedGroups merged = merge_groups(layer, merge_factor(layer, blocking_.NR));
    groups_ = merged.groups;
    layer_.weights = nullptr;
    if (gemm_adds_in_int16() && can_saturate(merged.weights, merged.depth)) {
      const Halves halves = split_in_halves(merged.weights);
      pack(halves.first, merged.depth);
      pack(halves.second, merged.depth);
    } else {
      pack(merged.weights, merged.depth);
    }
  }

  std::unique_ptr<BoundKernel> bind(std::span<const Shape> inputs, const Shape& output,
                                    int threads) const override;

  // FBGEMM requantizes by itself where it can; else OutputStage does it from all accumulators.
  bool is_fused() const {
    return stage_.dtype() == DType::kUInt8 && stage_.scaled_fits_int32() && summands_.size() == 1;
  }

  // FBGEMM's only clamps are [0, 255] and [zero_point, 255].
  bool fuses_relu() const { return stage_.low() == stage_.zero_point(); }
  bool needs_clamp() const {
    return stage_.high() != 255 || (stage_.low() != 0 && !fuses_relu());
  }

  const Layer& layer() const { return layer_; }
  const OutputStage& stage() const { return stage_; }
  const fbgemm::BlockingFactors& blocking() const { return blocking_; }
  std::int32_t groups() const { return groups_; }
  const std::vector<std::unique_ptr<PackedWeights>>& summands() const { return summands_; }

 private:
  void pack(const std::vector<std::int8_t>& weights, std::int32_t depth) {
    summands_.push_back(std::make_unique<PackedWeights>(
        fbgemm::matrix_op_t::Transpose, depth * groups_, layer_.out_channels / groups_,
        weights.data(), depth, nullptr, groups_, &blocking_));
  }

  Layer layer_;
  OutputStage stage_;
  fbgemm::BlockingFactors blocking_;
  std::int32_t groups_ = 1;  // after merging
  std::vector<std::unique_ptr<PackedWeights>> summands_;  // one or two, whose products are added
};

class BoundGemm final : public BoundKernel {
 public:
  BoundGemm(const PreparedGemm& gemm, const Images& images, int threads)
      : gemm_(gemm),
        rows_(images.out_pixels()),
        conv_(images.batch, gemm.layer().in_channels, gemm.layer().out_channels,
              {images.in_h, images.in_w}, gemm.groups(),
              {gemm.layer().window.kernel_h, gemm.layer().window.kernel_w},
              {gemm.layer().window.stride_h, gemm.layer().window.stride_w},
              {gemm.layer().window.pad_top, gemm.layer().window.pad_left,
               gemm.layer().window.pad_bottom, gemm.layer().window.pad_right},
              {gemm.layer().window.dilation_h, gemm.layer().window.dilation_w}) {
    const fbgemm::BlockingFactors& blocking = gemm.blocking();
    pack_bytes_ = aligned(std::size_t(
        PackedInput::packedBufferSize(blocking.MCB, blocking.KCB, &blocking)));
    const auto channels = std::size_t(gemm.layer().out_channels);
    const auto rows = std::size_t(rows_);
    if (gemm.is_fused()) {
      // FBGEMM keeps one block of rows per thread, or all rows if there are fewer.
      accumulator_bytes_ = aligned(
          std::min(rows, std::size_t(threads) * std::size_t(blocking.MCB)) * channels * 4);
      scratch_bytes_ = accumulator_bytes_;
    } else {
      accumulator_bytes_ = aligned(rows * channels * 4);
      scratch_bytes_ = accumulator_bytes_ * gemm.summands().size();
    }
    scratch_bytes_ += pack_bytes_ * std::size_t(threads);
  }

  std::size_t scratch_bytes() const override { return scratch_bytes_; }

  void run(const RunArgs& args) override {
    const int threads = args.pool->size();
    if (gemm_.is_fused()) {
      args.pool->run([&](int thread) { multiply_and_requantize(args, thread, threads); });
      if (gemm_.needs_clamp()) {
        args.pool->run([&](int thread) { clamp(args, thread, threads); });
      }
    } else {
      args.pool->run([&](int thread) { multiply(args, thread, threads); });
      args.pool->run([&](int thread) { convert(args, thread, threads); });
    }
  }

 private:

  std::uint8_t* pack_buffer(const RunArgs& args, int thread) const {
    return reinterpret_cast<std::uint8_t*>(args.scratch) + pack_bytes_ * std::size_t(thread);
  }

  std::int32_t* accumulators(const RunArgs& args, std::size_t summand) const {
    const std::size_t start = scratch_bytes_ - accumulator_bytes_ * (summand + 1);
    return reinterpret_cast<std::int32_t*>(args.scratch + start);
  }

  template <typename Output, typename Stage>
  void multiply_packed(const RunArgs& args, PackedWeights& weights, Output* output,
                       std::int32_t* accumulators, const Stage& stage, int thread,
                       int threads) const {
    PackedInput input(conv_, static_cast<const std::uint8_t*>(args.inputs[0]),
                      pack_buffer(args, thread), gemm_.layer().input_zero_point,
                      /*row_offset=*/nullptr, /*b_symmetric=*/true, &gemm_.blocking());
    fbgemm::fbgemmPacked(input, weights, output, accumulators,
                         std::uint32_t(gemm_.layer().out_channels), stage, thread, threads,
                         &gemm_.blocking());
  }

  void multiply_and_requantize(const RunArgs& args, int thread, int threads) const {
    if (gemm_.fuses_relu()) {
      multiply_and_requantize<true>(args, thread, threads);
    } else {
      multiply_and_requantize<false>(args, thread, threads);
    }
  }

  template <bool kRelu>
  void multiply_and_requantize(const RunArgs& args, int thread, int threads) const {
    using Requantize =
        fbgemm::ReQuantizeOutput<kRelu, fbgemm::QuantizationGranularity::OUT_CHANNEL>;
    const OutputStage& stage = gemm_.stage();
    fbgemm::DoNothing<> nothing;
    // The input's zero point is in the offsets already, the weights have none.
    const Requantize requantize(nothing, stage.multipliers(), stage.zero_point(),
                                /*Aq_zero_point=*/0, /*Bq_zero_point=*/nullptr,
                                /*row_offsets=*/nullptr, /*col_offsets=*/nullptr, stage.offsets(),
                                std::uint32_t(stage.channels()), gemm_.groups());
    multiply_packed(args, *gemm_.summands()[0], static_cast<std::uint8_t*>(args.output),
                    accumulators(args, 0), requantize, thread, threads);
  }

  void multiply(const RunArgs& args, int thread, int threads) const {
    fbgemm::DoNothing<std::int32_t, std::int32_t> nothing;
    const fbgemm::memCopy<> copy(nothing);
    for (std::size_t i = 0; i < gemm_.summands().size(); ++i) {
      std::int32_t* output = accumulators(args, i);
      multiply_packed(args, *gemm_.summands()[i], output, output, copy, thread, threads);
    }
  }

  void convert(const RunArgs& args, int thread, int threads) const {
    const OutputStage& stage = gemm_.stage();
    const Slice slice = slice_of(rows_, thread, threads);
    const std::int64_t start = slice.begin * stage.channels();
    const std::int32_t* second =
        gemm_.summands().size() == 2 ? accumulators(args, 1) + start : nullptr;
    stage.write(accumulators(args, 0) + start, second, slice.end - slice.begin,
                static_cast<std::byte*>(args.output) + start * std::int64_t(size_of(stage.dtype())));
  }

  void clamp(const RunArgs& args, int thread, int threads) const {
    const OutputStage& stage = gemm_.stage();
    const Slice slice = slice_of(rows_ * stage.channels(), thread, threads);
    auto* output = static_cast<std::uint8_t*>(args.output);
    const auto low = static_cast<std::uint8_t>(stage.low());
    const auto high = static_cast<std::uint8_t>(stage.high());
    for (std::int64_t i = slice.begin; i < slice.end; ++i) {
      output[i] = std::min(std::max(output[i], low), high);
    }
  }

  const PreparedGemm& gemm_;
  std::int64_t rows_;
  fbgemm::conv_param_t<2> conv_;
  std::size_t pack_bytes_ = 0, accumulator_bytes_ = 0, scratch_bytes_ = 0;
};

std::unique_ptr<BoundKernel> PreparedGemm::bind(std::span<const Shape> inputs, const Shape& output,
                                                int threads) const {
  return std::make_unique<BoundGemm>(*this, Images(layer_, inputs[0], output), threads);
}

}  // namespace

std::unique_ptr<PreparedKernel> prepare_gemm(const Layer& layer, const Operator& op) {
  return std::make_unique<PreparedGemm>(layer, op);
}

}  // namespace pyquant::fbgemm_engine
