// The `qnnpack` engine: Conv2d, Linear, Add and pooling on QNNPACK, which libtorch contains. It is
// the fast engine on ARM; on x86 it is an SSE2 fallback that shows what phones compute.
//
// Conv2d, Linear and pooling are bit-exact with pyquant/operator.h. Add is at most one step away:
// QNNPACK scales the operands with 22-bit fixed-point multipliers and rounds halves away from zero,
// where operator.h has float32 and halves to even.
//
// Weights are uint8 with zero point 128. Convolutions and poolings keep pointers to their input in
// the QNNPACK operator, which therefore belongs to the bound kernel; QNNPACK packs the weights of a
// convolution with a window into it. Linear and pointwise convolutions pack once per prepare.
// Linear and pointwise convolutions use all threads of the pool, the others one.
//
// Not supported, for the reason that why_unsupported gives: float32 outputs and operands, average
// pooling whose divisor varies, and ratios of scales beyond QNNPACK's ranges. Padding that differs
// between opposite sides is copied into scratch memory first.
#pragma once

#include <memory>

#include "engines/engine.h"

namespace pyquant {

std::unique_ptr<Engine> make_qnnpack_engine();

}  // namespace pyquant
