// What the runtime knows about each kind of operator: how to check it and what shape it gives.
// One file per kind in this folder; operator_table.cpp lists them in the order of OpAttributes.
#pragma once

#include <cstdint>
#include <span>

#include "pyquant/operator.h"

namespace pyquant {

// How many inputs an operator takes, constants included.
struct InputCount {
  constexpr InputCount(std::size_t count) noexcept  // NOLINT(google-explicit-constructor)
      : min(count), max(count) {}
  constexpr InputCount(std::size_t least, std::size_t most) noexcept : min(least), max(most) {}

  std::size_t min, max;
};

struct OpDefinition {
  const char* name;
  InputCount input_count;
  // Operand dtypes, qparams and attributes; called after the input count was checked. Throws
  // InvalidProgramError.
  void (*check)(const Operator& op);
  // Throws InvalidInputError.
  Shape (*infer_shape)(const Operator& op, std::span<const Shape> inputs);
  // Whether the output is the input's bytes under another shape.
  bool (*is_view)(std::span<const Shape> inputs);
};

extern const OpDefinition kQuantizeDefinition, kDequantizeDefinition, kConv2dDefinition,
    kLinearDefinition, kAddDefinition, kMaxPool2dDefinition, kAvgPool2dDefinition,
    kAdaptiveAvgPool2dDefinition, kFlattenDefinition, kPadDefinition, kLookupTableDefinition,
    kMulDefinition, kConcatDefinition, kSliceDefinition, kChannelShuffleDefinition,
    kResizeNearestDefinition, kResizeBilinearDefinition, kConvTranspose2dDefinition,
    kReshapeDefinition, kAdaptiveMaxPool2dDefinition;

const OpDefinition& definition_of(const OpAttributes& attributes);

inline bool never_view(std::span<const Shape> /*inputs*/) { return false; }

// --- Checks that several operators share.

[[noreturn]] void reject_operator(const Operator& op, const std::string& why);  // InvalidProgram
[[noreturn]] void reject_shapes(const Operator& op, const std::string& why);    // InvalidInput

// An activation of this dtype; uint8 ones must have a finite positive scale and a zero_point
// within 0..255.
void check_activation(const Operator& op, const Operand& operand, const char* role);
void check_uint8_activation(const Operator& op, const Operand& operand, const char* role);
void check_output_bounds(const Operator& op, int output_min, int output_max);
// Output qparams equal those of every input.
void check_same_qparams(const Operator& op);
// weight int8 with one positive scale per output channel, bias int32, and no accumulator that can
// leave int32.
void check_weight_and_bias(const Operator& op, std::size_t weight_rank);
// Of a convolution whose operands are [x, weight, bias]: all but the rule for the output's size.
void check_convolution(const Operator& op, const Window& window, std::int32_t groups);
// x has the channels that the weight [O, kernel_h, kernel_w, C / groups] takes.
void require_channels(const Operator& op, std::span<const Shape> inputs, std::int32_t groups);
void check_window(const Operator& op, const Window& window);

void require_rank(const Operator& op, const Shape& shape, std::size_t rank);
void require_axis(const Operator& op, const Shape& shape, std::int32_t axis);

// The larger of each dimension of two inputs of one rank; those of 1 are repeated.
Shape broadcast_shape(const Operator& op, std::span<const Shape> inputs);

// Output positions of a window along one axis, as torch counts them. With ceil_mode the last
// window may hang over the end but must start inside the image or its leading padding.
std::int64_t window_positions(const Operator& op, std::int64_t size, std::int32_t kernel,
                              std::int32_t stride, std::int32_t pad_begin, std::int32_t pad_end,
                              std::int32_t dilation, bool ceil_mode);
// [N, H', W', C] of a pooling or convolution window over x [N, H, W, ...].
Shape window_output(const Operator& op, const Shape& x, const Window& window, bool ceil_mode,
                    std::int64_t channels);

}  // namespace pyquant
