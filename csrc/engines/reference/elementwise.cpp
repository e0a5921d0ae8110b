#include "engines/reference/broadcast.h"
#include "engines/reference/reference_engine.h"
#include "quant/requantize.h"

namespace pyquant::reference {
namespace {

// The operand's value for element `output_index` of the output, in steps of the output's scale.
float in_output_steps(const Operand& operand, const ConstTensorView& view, const Shape& output,
                      std::int64_t output_index, float output_scale) {
  const std::int64_t index = broadcast_index(output_index, output, view.shape);
  if (view.dtype == DType::kFloat32) {
    return static_cast<const float*>(view.data)[index] * inverse_of(output_scale);
  }
  const std::int32_t q = static_cast<const std::uint8_t*>(view.data)[index];
  return static_cast<float>(q - operand.qparams.zero_point) *
         (operand.qparams.scale / output_scale);
}

}  // namespace

void run_add(const Operator& op, std::span<const ConstTensorView> inputs,
             const TensorView& output) {
  const auto& add = std::get<Add>(op.attributes);
  auto* y = static_cast<std::uint8_t*>(output.data);
  const QParams& qparams = op.output.qparams;
  const std::int64_t count = output.shape.elements();
  for (std::int64_t i = 0; i < count; ++i) {
    const float a = in_output_steps(op.inputs[0], inputs[0], output.shape, i, qparams.scale);
    const float b = in_output_steps(op.inputs[1], inputs[1], output.shape, i, qparams.scale);
    y[i] = round_to_uint8(a + b, qparams.zero_point, add.output_min, add.output_max);
  }
}

void run_table(const Operator& op, std::span<const ConstTensorView> inputs,
               const TensorView& output) {
  const auto& table = std::get<LookupTable>(op.attributes);
  const auto* x = static_cast<const std::uint8_t*>(inputs[0].data);
  auto* y = static_cast<std::uint8_t*>(output.data);
  const std::int64_t count = output.shape.elements();
  for (std::int64_t i = 0; i < count; ++i) {
    y[i] = table.values[x[i]];
  }
}

}  // namespace pyquant::reference
