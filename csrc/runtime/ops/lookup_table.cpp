#include "runtime/ops/op_definition.h"

namespace pyquant {
namespace {

void check_table(const Operator& op) {
  check_uint8_activation(op, op.inputs[0], "the input");
  check_uint8_activation(op, op.output, "the output");
}

Shape table_shape(const Operator& /*op*/, std::span<const Shape> inputs) { return inputs[0]; }

}  // namespace

const OpDefinition kLookupTableDefinition = {"LookupTable", 1, check_table, table_shape,
                                             never_view};

}  // namespace pyquant
