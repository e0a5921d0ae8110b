#include <array>

#include "runtime/ops/op_definition.h"

namespace pyquant {
namespace {

// In the order of OpAttributes.
constexpr std::array<const OpDefinition*, std::variant_size_v<OpAttributes>> kDefinitions = {
    &kQuantizeDefinition,
    &kDequantizeDefinition,
    &kConv2dDefinition,
    &kLinearDefinition,
    &kAddDefinition,
    &kMaxPool2dDefinition,
    &kAvgPool2dDefinition,
    &kAdaptiveAvgPool2dDefinition,
    &kFlattenDefinition,
    &kPadDefinition,
    &kLookupTableDefinition,
    &kMulDefinition,
    &kConcatDefinition,
    &kSliceDefinition,
    &kChannelShuffleDefinition,
    &kResizeNearestDefinition,
    &kResizeBilinearDefinition,
    &kConvTranspose2dDefinition,
    &kReshapeDefinition,
    &kAdaptiveMaxPool2dDefinition,
};

// FBGEMM and QNNPACK count in int; nobody has asked for larger activations.
constexpr std::int64_t kMaxElements = INT32_MAX;

void check_size(const Operator& op, const Shape& shape) {
  std::int64_t elements = 1;
  for (const std::int64_t dim : shape) {
    if (dim < 1 || dim > kMaxElements || elements * dim > kMaxElements) {
      reject_shapes(op, "a tensor of shape " + shape.to_string() + " is empty or too large");
    }
    elements *= dim;
  }
}

}  // namespace

const OpDefinition& definition_of(const OpAttributes& attributes) {
  return *kDefinitions[attributes.index()];
}

const char* kind_name(const OpAttributes& attributes) { return definition_of(attributes).name; }

Shape infer_output_shape(const Operator& op, const std::vector<Shape>& inputs) {
  if (inputs.size() != op.inputs.size()) {
    reject_shapes(op, "takes " + std::to_string(op.inputs.size()) + " inputs, not " +
                          std::to_string(inputs.size()));
  }
  for (const Shape& shape : inputs) {
    check_size(op, shape);
  }
  const Shape output = definition_of(op.attributes).infer_shape(op, inputs);
  check_size(op, output);
  return output;
}

void check_operator(const Operator& op) {
  const OpDefinition& definition = definition_of(op.attributes);
  const auto [min, max] = definition.input_count;
  if (op.inputs.size() < min || op.inputs.size() > max) {
    reject_operator(op, "has " + std::to_string(op.inputs.size()) + " inputs instead of " +
                            std::to_string(min) + (min == max ? "" : " to " + std::to_string(max)));
  }
  if (op.output.constant.data != nullptr) {
    reject_operator(op, "writes to a constant");
  }
  definition.check(op);
}

}  // namespace pyquant
