// What the convolutions of this engine do to their outputs before storing them.
#pragma once

#include <cstddef>
#include <span>

#include "engines/engine.h"
#include "kernels/output_stage.h"

namespace pyquant::native {

// Whether a Conv2d or Linear takes them: one LookupTable or one Add of uint8 activations, where the
// instruction set has it.
bool fuses(const Operator& op, std::span<const PostOp> post_ops);

// What an Add multiplies the uint8 operand number `input` by.
AddOperand add_operand(const Operator& add, std::size_t input);

// The Add of a PostOp that `fuses` accepts. Its distance is known at run time.
ResidualAdd residual_add(const PostOp& post_op);

// Where RunArgs::inputs has the other operand of an Add.
inline constexpr std::size_t kResidualInput = 1;

// Whether a layer's outputs may be some of the channels of a wider tensor: not with an Add, whose
// other operand is as far from every output.
bool takes_output_strides(const OutputStage& output);

// Sets that distance, if there is an Add.
void find_residual(const RunArgs& args, OutputStage& output);

}  // namespace pyquant::native
