#include "engines/fbgemm/groupwise.h"

#include <utility>

#include "engines/fbgemm/fused.h"
#include "engines/fbgemm/saturation.h"

namespace pyquant::fbgemm_engine {
namespace {

using PackedWeights = fbgemm::PackWeightMatrixForGConv<std::int8_t, std::int32_t, 2>;

// What of the convolution FBGEMM's packing and its choice of kernel look at: not the image.
fbgemm::conv_param_t<2> any_image(const Layer& layer) {
  Images image;
  image.batch = 1;
  image.in_h = layer.window.kernel_h;
  image.in_w = layer.window.kernel_w;
  return conv_param(layer, image, layer.groups);
}

class PreparedGroupwise final : public PreparedKernel {
 public:
  PreparedGroupwise(const Layer& layer, OutputStage stage)
      : layer_(layer),
        stage_(std::move(stage)),
        weights_(fbgemm::matrix_op_t::Transpose, any_image(layer), layer.weights) {
    layer_.weights = nullptr;
  }

  std::unique_ptr<BoundKernel> bind(std::span<const StridedShape> inputs,
                                    const StridedShape& output, int threads) const override;

  const Layer& layer() const { return layer_; }
  const OutputStage& stage() const { return stage_; }
  // FBGEMM reads through a mutable reference.
  PackedWeights& weights() const { return weights_; }

 private:
  Layer layer_;
  OutputStage stage_;
  mutable PackedWeights weights_;
};

class BoundGroupwise final : public BoundKernel {
 public:
  BoundGroupwise(const PreparedGroupwise& groupwise, const Images& images)
      : groupwise_(groupwise),
        rows_(images.out_pixels()),
        conv_(conv_param(groupwise.layer(), images, groupwise.layer().groups)) {}

  // FBGEMM addresses the accumulators of a few groups as if they were those of all.
  std::size_t scratch_bytes() const override {
    return static_cast<std::size_t>(rows_ * groupwise_.stage().channels()) * sizeof(std::int32_t);
  }

  void run(const RunArgs& args) override {
    run_fused(args, groupwise_.stage(), conv_.G, rows_,
              [&](const auto& requantize, int thread, int threads) {
                fbgemm::fbgemmGroupwiseConv(
                    conv_, static_cast<const std::uint8_t*>(args.inputs[0]),
                    groupwise_.layer().input_zero_point, /*rowOffsetBuf=*/nullptr,
                    groupwise_.weights(), static_cast<std::uint8_t*>(args.output),
                    reinterpret_cast<std::int32_t*>(args.scratch), requantize, thread, threads);
              });
  }

 private:
  const PreparedGroupwise& groupwise_;
  std::int64_t rows_;
  fbgemm::conv_param_t<2> conv_;
};

std::unique_ptr<BoundKernel> PreparedGroupwise::bind(std::span<const StridedShape> inputs,
                                                     const StridedShape& output,
                                                     int /*threads*/) const {
  return std::make_unique<BoundGroupwise>(*this, Images(layer_, inputs[0], output));
}

}  // namespace

bool is_groupwise(const Layer& layer, const OutputStage& stage) {
  const fbgemm::conv_param_t<2> conv = any_image(layer);
  // FBGEMM walks over the groups in steps of numOfGroupsTogether and past the last one if that does
  // not divide their number.
  return layer.groups > 1 && stage.dtype() == DType::kUInt8 && stage.scaled_fits_int32() &&
         fbgemm::fbgemmOptimizedGConv(conv) &&
         layer.groups % PackedWeights::numOfGroupsTogether(conv) == 0 &&
         !(gemm_adds_in_int16() &&
           can_saturate({layer.weights, layer.weight_count()}, layer.depth()));
}

std::unique_ptr<PreparedKernel> prepare_groupwise(const Layer& layer, OutputStage stage) {
  return std::make_unique<PreparedGroupwise>(layer, std::move(stage));
}

}  // namespace pyquant::fbgemm_engine
