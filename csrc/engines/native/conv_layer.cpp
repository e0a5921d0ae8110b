#include "engines/native/conv_layer.h"

#include <numeric>

#include "engines/native/post_ops.h"

namespace pyquant::native {

ConvLayer::ConvLayer(const Operator& op, std::span<const PostOp> post_ops)
    : kernels(kernel_table()),
      input_zero_point(op.inputs[0].qparams.zero_point),
      weights(static_cast<const std::int8_t*>(op.inputs[1].constant.data)),
      constants(op),
      output_size(size_of(op.output.dtype)) {
  const Shape& shape = op.inputs[1].constant.shape;
  if (const auto* conv = std::get_if<Conv2d>(&op.attributes)) {
    window = conv->window;
    groups = conv->groups;
  }
  out_channels = shape[0];
  in_channels = shape[shape.rank() - 1] * groups;
  output = {op.output.dtype == DType::kFloat32 ? OutputStage::Kind::kFloat
            : constants.scaled_fits_int32      ? OutputStage::Kind::kUInt8
                                               : OutputStage::Kind::kUInt8Clamped,
            {constants.zero_point, constants.low, constants.high}};
  output.float_sums = kernels.takes_float_sums && output.kind == OutputStage::Kind::kUInt8 &&
                      constants.low == constants.zero_point &&
                      constants.largest_magnitude < std::int64_t{1} << 23;
  for (const PostOp& post_op : post_ops) {
    fuse(post_op);
  }
}

void ConvLayer::fuse(const PostOp& post_op) {
  if (const auto* table = std::get_if<LookupTable>(&post_op.op->attributes)) {
    table_ = std::make_shared<const LookupTable>(*table);
    output.post_op = OutputStage::PostOp::kTable;
    output.table = table_->values.data();
  } else {
    output.post_op = OutputStage::PostOp::kAdd;
    output.add = residual_add(post_op);
  }
}

std::int32_t ConvLayer::offset(std::int64_t out) const {
  const std::int32_t unshifted = constants.offsets[static_cast<std::size_t>(out)];
  if (geometry().input_shift == 0) {
    return unshifted;
  }
  const std::int64_t depth = kernel_pixels() * group_in();
  const std::int8_t* first = weights + out * depth;
  const auto sum = std::accumulate(first, first + depth, std::int64_t{0});
  // Modulo 2^32, as the offset itself.
  return static_cast<std::int32_t>(static_cast<std::uint32_t>(unshifted) +
                                   static_cast<std::uint32_t>(geometry().input_shift * sum));
}

LaneConstants::LaneConstants(const std::byte* memory, const LaneBlock& block, bool float_sums)
    : offsets(reinterpret_cast<const std::int32_t*>(memory)),
      multipliers(reinterpret_cast<const float*>(offsets + block.lanes())),
      shifts(float_sums ? multipliers + block.lanes() : nullptr) {}

void LaneConstants::pack(const ConvLayer& layer, const LaneBlock& block, std::byte* memory) {
  auto* offsets = reinterpret_cast<std::int32_t*>(memory);
  auto* multipliers = reinterpret_cast<float*>(offsets + block.lanes());
  float* shifts = multipliers + block.lanes();
  block.for_each_lane([&](std::size_t lane, std::int64_t channel) {
    const float multiplier = layer.constants.multipliers[static_cast<std::size_t>(channel)];
    offsets[lane] = layer.offset(channel);
    multipliers[lane] = multiplier;
    if (layer.output.float_sums) {
      // Modulo 2^32, as the offset itself.
      offsets[lane] = static_cast<std::int32_t>(static_cast<std::uint32_t>(offsets[lane]) +
                                                static_cast<std::uint32_t>(kFloatSum));
      shifts[lane] = -0x1p23F * multiplier;
    }
  });
}

}  // namespace pyquant::native
