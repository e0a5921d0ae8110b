#include <algorithm>

#include "runtime/ops/op_definition.h"

namespace pyquant {
namespace {

constexpr std::int32_t kInferred = -1;

void check_reshape(const Operator& op) {
  check_uint8_activation(op, op.inputs[0], "the input");
  check_uint8_activation(op, op.output, "the output");
  check_same_qparams(op);
  const auto& sizes = std::get<Reshape>(op.attributes).sizes;
  if (sizes.empty() || sizes.size() >= Shape::kMaxRank) {
    reject_operator(op, "gives " + std::to_string(1 + sizes.size()) + " dimensions");
  }
  const auto is_size = [](std::int32_t size) { return size > 0 || size == kInferred; };
  if (!std::all_of(sizes.begin(), sizes.end(), is_size) ||
      std::count(sizes.begin(), sizes.end(), kInferred) > 1) {
    reject_operator(op, "its sizes must be positive, at most one of them -1");
  }
}

Shape reshape_shape(const Operator& op, std::span<const Shape> inputs) {
  const Shape& x = inputs[0];
  const std::int64_t elements = x.elements() / x[0];
  Shape result{x[0]};
  std::int64_t known = 1;
  for (const std::int32_t size : std::get<Reshape>(op.attributes).sizes) {
    result.push_back(size);
    known = size == kInferred ? known : known * size;
    if (known > elements) {
      break;
    }
  }
  const auto inferred = std::find(result.begin(), result.end(), kInferred);
  if (elements % known != 0 || (inferred == result.end() && known != elements)) {
    reject_shapes(op, "the input " + x.to_string() + " does not have the elements of its sizes");
  }
  for (std::size_t axis = 1; axis < result.rank(); ++axis) {
    result[axis] = result[axis] == kInferred ? elements / known : result[axis];
  }
  return result.rank() == 4 ? Shape{result[0], result[2], result[3], result[1]} : result;
}

}  // namespace

const OpDefinition kReshapeDefinition = {"Reshape", 1, check_reshape, reshape_shape, never_view};

}  // namespace pyquant
