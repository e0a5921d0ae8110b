#include "engines/native/native_engine.h"

#include <array>

#include "kernels/kernel_table.h"

namespace pyquant {
namespace native {
namespace {

// In the order of OpAttributes; null where there is no native kernel.
constexpr std::array<Maker, std::variant_size_v<OpAttributes>> kMakers = {
    prepare_quantize, prepare_dequantize, prepare_conv2d,     prepare_linear,
    prepare_add,      prepare_max_pool2d, prepare_avg_pool2d, prepare_adaptive_avg_pool2d,
    nullptr,  // Flatten: a copy, in reference
    nullptr,  // Pad: a copy, in reference
    prepare_table,    prepare_mul,
    nullptr,  // Reshape: a copy, in reference
};

class NativeEngine final : public Engine {
 public:
  std::string_view name() const override { return "native"; }

  std::string why_unsupported(const Operator& op) const override {
    if (kMakers[op.attributes.index()] == nullptr) {
      return "it has no kernel for this kind of operator";
    }
    if ((std::holds_alternative<Conv2d>(op.attributes) ||
         std::holds_alternative<Linear>(op.attributes)) &&
        kernel_table().convolve == nullptr) {
      return std::string("it has no kernel for the instruction set ") + kernel_table().isa + " yet";
    }
    if (std::holds_alternative<Dequantize>(op.attributes) && op.inputs[0].dtype != DType::kUInt8) {
      return "it takes uint8 activations";
    }
    if (std::holds_alternative<Add>(op.attributes) && op.inputs[0].dtype == DType::kFloat32 &&
        op.inputs[1].dtype == DType::kFloat32) {
      return "it takes at least one uint8 activation";
    }
    return {};
  }

  std::unique_ptr<PreparedKernel> prepare(const Operator& op) const override {
    return kMakers[op.attributes.index()](op);
  }
};

}  // namespace
}  // namespace native

std::unique_ptr<Engine> make_native_engine() { return std::make_unique<native::NativeEngine>(); }

}  // namespace pyquant
