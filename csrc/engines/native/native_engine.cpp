#include "engines/native/native_engine.h"

#include <array>

#include "engines/native/conv_transpose2d.h"
#include "engines/native/post_ops.h"

namespace pyquant {
namespace native {
namespace {

// In the order of OpAttributes; null where there is no native kernel.
constexpr std::array<Maker, std::variant_size_v<OpAttributes>> kMakers = {
    prepare_quantize,
    prepare_dequantize,
    prepare_conv2d,
    prepare_linear,
    prepare_add,
    prepare_max_pool2d,
    prepare_avg_pool2d,
    prepare_adaptive_avg_pool2d,
    prepare_flatten,
    prepare_pad,
    prepare_table,
    prepare_mul,
    prepare_concat,
    prepare_slice,
    prepare_channel_shuffle,
    prepare_resize_nearest,
    prepare_resize_bilinear,
    prepare_conv_transpose2d,
    nullptr,  // Reshape: a copy, in reference
    prepare_adaptive_max_pool2d,
};

class NativeEngine final : public Engine {
 public:
  std::string_view name() const override { return "native"; }

  std::string why_unsupported(const Operator& op) const override {
    if (kMakers[op.attributes.index()] == nullptr) {
      return "it has no kernel for this kind of operator";
    }
    if (std::holds_alternative<Dequantize>(op.attributes) && op.inputs[0].dtype != DType::kUInt8) {
      return "it takes uint8 activations";
    }
    if (std::holds_alternative<Add>(op.attributes) && op.inputs[0].dtype == DType::kFloat32 &&
        op.inputs[1].dtype == DType::kFloat32) {
      return "it takes at least one uint8 activation";
    }
    if (const auto* conv = std::get_if<ConvTranspose2d>(&op.attributes)) {
      return why_not_convolutions(*conv);
    }
    return {};
  }

  bool fuses(const Operator& op, std::span<const PostOp> post_ops) const override {
    return native::fuses(op, post_ops);
  }

  std::unique_ptr<PreparedKernel> prepare(const Operator& op,
                                          std::span<const PostOp> post_ops) const override {
    return post_ops.empty() ? kMakers[op.attributes.index()](op) : prepare_fused(op, post_ops);
  }
};

}  // namespace
}  // namespace native

std::unique_ptr<Engine> make_native_engine() { return std::make_unique<native::NativeEngine>(); }

}  // namespace pyquant
