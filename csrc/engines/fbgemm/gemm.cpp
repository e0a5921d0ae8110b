#include "engines/fbgemm/gemm.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "engines/fbgemm/blocking.h"
#include "engines/fbgemm/fused.h"
#include "engines/fbgemm/saturation.h"
#include "runtime/aligned_buffer.h"

namespace pyquant::fbgemm_engine {
namespace {

using PackedInput = fbgemm::PackAWithIm2Col<std::uint8_t, std::int32_t, 2>;
using PackedWeights = fbgemm::PackBMatrix<std::int8_t, std::int32_t>;

// A layer's weights with every `factor` neighbouring groups merged into one; those between what
// were different groups are zero.
struct MergedGroups {
  std::int32_t groups;
  std::int32_t depth;
  std::vector<std::int8_t> weights;  // [out_channels, depth]
};

MergedGroups merge_groups(const Layer& layer, std::int32_t factor) {
  const std::int32_t group_in = layer.in_channels / layer.groups;
  const std::int32_t group_out = layer.out_channels / layer.groups;
  const std::int32_t taps = layer.window.kernel_h * layer.window.kernel_w;
  MergedGroups merged{layer.groups / factor, layer.depth() * factor, {}};
  merged.weights.resize(layer.weight_count() * static_cast<std::size_t>(factor));
  for (std::int32_t o = 0; o < layer.out_channels; ++o) {
    const std::int32_t member = o / group_out % factor;
    const std::int8_t* source = layer.weights + std::int64_t{o} * layer.depth();
    std::int8_t* target = merged.weights.data() + std::int64_t{o} * merged.depth;
    for (std::int32_t tap = 0; tap < taps; ++tap) {
      std::copy_n(source + tap * group_in, group_in, target + (tap * factor + member) * group_in);
    }
  }
  return merged;
}

// FBGEMM multiplies register blocks of `columns` output channels, and copies its input group by
// group: groups that are much narrower are slower than multiplying by zeros.
std::int32_t merge_factor(const Layer& layer, std::int32_t columns) {
  const std::int32_t group_out = layer.out_channels / layer.groups;
  std::int32_t factor = 1;
  for (std::int32_t candidate = 2; candidate <= layer.groups && candidate * group_out <= columns;
       ++candidate) {
    if (layer.groups % candidate == 0) {
      factor = candidate;
    }
  }
  return factor;
}

class PreparedGemm final : public PreparedKernel {
 public:
  PreparedGemm(const Layer& layer, OutputStage stage)
      : layer_(layer), stage_(std::move(stage)), blocking_(blocking_factors(layer)) {
    layer_.weights = nullptr;
    const MergedGroups merged = merge_groups(layer, merge_factor(layer, blocking_.NR));
    groups_ = merged.groups;
    if (gemm_adds_in_int16() && can_saturate(merged.weights, merged.depth)) {
      const Halves halves = split_in_halves(merged.weights);
      pack(halves.first, merged.depth);
      pack(halves.second, merged.depth);
    } else {
      pack(merged.weights, merged.depth);
    }
  }

  std::unique_ptr<BoundKernel> bind(std::span<const StridedShape> inputs,
                                    const StridedShape& output, int threads) const override;

  // True if FBGEMM requantizes by itself; else OutputStage does it from all accumulators.
  bool is_fused() const {
    return stage_.dtype() == DType::kUInt8 && stage_.scaled_fits_int32() && summands_.size() == 1;
  }

  const Layer& layer() const { return layer_; }
  const OutputStage& stage() const { return stage_; }
  const fbgemm::BlockingFactors& blocking() const { return blocking_; }
  std::int32_t groups() const { return groups_; }
  std::size_t summands() const { return summands_.size(); }
  PackedWeights& summand(std::size_t i) const { return *summands_[i]; }

 private:
  void pack(const std::vector<std::int8_t>& weights, std::int32_t depth) {
    summands_.push_back(std::make_unique<PackedWeights>(
        fbgemm::matrix_op_t::Transpose, depth * groups_, layer_.out_channels / groups_,
        weights.data(), depth, /*pmat=*/nullptr, groups_, &blocking_));
  }

  Layer layer_;
  OutputStage stage_;
  fbgemm::BlockingFactors blocking_;
  std::int32_t groups_ = 1;                               // after merging
  std::vector<std::unique_ptr<PackedWeights>> summands_;  // one, or two whose products are added
};

class BoundGemm final : public BoundKernel {
 public:
  BoundGemm(const PreparedGemm& gemm, const Images& images, int threads)
      : gemm_(gemm),
        rows_(images.out_pixels()),
        conv_(conv_param(gemm.layer(), images, gemm.groups())) {
    const fbgemm::BlockingFactors& blocking = gemm.blocking();
    // FBGEMM's fused path keeps the accumulators of one block of rows per thread, or of all rows if
    // there are fewer.
    const std::int64_t rows_kept =
        gemm.is_fused() ? std::min(rows_, std::int64_t{threads} * blocking.MCB) : rows_;
    accumulator_bytes_ = align_to_cache_line(
        static_cast<std::size_t>(rows_kept * gemm.stage().channels()) * sizeof(std::int32_t));
    pack_bytes_ = align_to_cache_line(static_cast<std::size_t>(
        PackedInput::packedBufferSize(blocking.MCB, blocking.KCB, &blocking)));
    scratch_bytes_ =
        accumulator_bytes_ * gemm.summands() + pack_bytes_ * static_cast<std::size_t>(threads);
  }

  std::size_t scratch_bytes() const override { return scratch_bytes_; }

  void run(const RunArgs& args) override {
    if (gemm_.is_fused()) {
      run_fused(args, gemm_.stage(), gemm_.groups(), rows_,
                [&](const auto& requantize, int thread, int threads) {
                  multiply(args, 0, static_cast<std::uint8_t*>(args.output), requantize, thread,
                           threads);
                });
      return;
    }
    const int threads = args.pool->size();
    args.pool->run([&](int thread) {
      fbgemm::DoNothing<std::int32_t, std::int32_t> nothing;
      const fbgemm::memCopy<> copy(nothing);
      for (std::size_t i = 0; i < gemm_.summands(); ++i) {
        multiply(args, i, accumulators(args, i), copy, thread, threads);
      }
    });
    args.pool->run([&](int thread) { convert(args, slice_of(rows_, thread, threads)); });
  }

 private:
  // Scratch: the accumulators of each summand, then each thread's block of packed input.
  std::int32_t* accumulators(const RunArgs& args, std::size_t summand) const {
    return reinterpret_cast<std::int32_t*>(args.scratch + accumulator_bytes_ * summand);
  }
  std::uint8_t* pack_buffer(const RunArgs& args, int thread) const {
    return reinterpret_cast<std::uint8_t*>(args.scratch + accumulator_bytes_ * gemm_.summands() +
                                           pack_bytes_ * static_cast<std::size_t>(thread));
  }

  template <typename Output, typename Stage>
  void multiply(const RunArgs& args, std::size_t summand, Output* output, const Stage& stage,
                int thread, int threads) const {
    PackedInput input(conv_, static_cast<const std::uint8_t*>(args.inputs[0]),
                      pack_buffer(args, thread), gemm_.layer().input_zero_point,
                      /*row_offset=*/nullptr, /*b_symmetric=*/true, &gemm_.blocking());
    fbgemm::fbgemmPacked(input, gemm_.summand(summand), output, accumulators(args, summand),
                         static_cast<std::uint32_t>(gemm_.stage().channels()), stage, thread,
                         threads, &gemm_.blocking());
  }

  void convert(const RunArgs& args, Range rows) const {
    const OutputStage& stage = gemm_.stage();
    const std::int64_t start = rows.begin * stage.channels();
    auto* output = static_cast<std::byte*>(args.output) +
                   static_cast<std::size_t>(start) * size_of(stage.dtype());
    stage.write(accumulators(args, 0) + start,
                gemm_.summands() == 2 ? accumulators(args, 1) + start : nullptr,
                rows.end - rows.begin, output);
  }

  const PreparedGemm& gemm_;
  std::int64_t rows_;
  fbgemm::conv_param_t<2> conv_;
  std::size_t accumulator_bytes_ = 0, pack_bytes_ = 0, scratch_bytes_ = 0;
};

std::unique_ptr<BoundKernel> PreparedGemm::bind(std::span<const StridedShape> inputs,
                                                const StridedShape& output, int threads) const {
  return std::make_unique<BoundGemm>(*this, Images(layer_, inputs[0], output), threads);
}

}  // namespace

std::unique_ptr<PreparedKernel> prepare_gemm(const Layer& layer, OutputStage stage) {
  return std::make_unique<PreparedGemm>(layer, std::move(stage));
}

}  // namespace pyquant::fbgemm_engine
