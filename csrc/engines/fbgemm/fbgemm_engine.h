// The `fbgemm` engine: Conv2d and Linear on FBGEMM's x86 int8 kernels, which libtorch contains.
//
// Bit-exact with pyquant/operator.h for every operator it accepts:
//   - Zero points and biases are folded into one int32 per output channel (OutputStage), and the
//     multiplier is requantize_multiplier(); FBGEMM only multiplies, rounds half to even and packs.
//   - Its kernels for CPUs without VNNI add pairs of products in int16 and would saturate. Where
//     the weights allow that, they are split in two summands that cannot (saturation.h).
//   - Its conversion to int32 overflows beyond 2^31. Where an accumulator times its multiplier
//   could
//     get there, and where the output is float32, OutputStage converts the accumulators instead.
//   - Its depthwise kernels saturate on every CPU with almost all real weights, so that depthwise
//     convolutions run on a loop of our own (depthwise.h).
//
// The ISA is FBGEMM's (fbgemmInstructionSet), read in prepare. The first run of a shape compiles
// FBGEMM's kernels for it. Images and outputs must have fewer than 2^31 elements, because FBGEMM
// indexes with int.
#pragma once

#include <memory>

#include "engines/engine.h"

namespace pyquant {

std::unique_ptr<Engine> make_fbgemm_engine();

}  // namespace pyquant
