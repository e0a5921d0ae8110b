// What this CPU offers, and the most that it can do, as a yardstick for kernels. Any number of
// threads may call these functions.
#pragma once

#include <optional>
#include <string>

#include "pyquant/export.h"

namespace pyquant {

// The instruction set of the kernels in use: the best that the CPU has, or PYQUANT_ISA. Throws
// UnsupportedError where that names none of this build's, or one that the CPU lacks.
PYQUANT_API std::string isa_in_use();

// 8-bit multiply-adds per second that one core reaches with that instruction set's fastest
// multiply-add and nothing else, registers only: the best of many short bursts during `seconds`.
// Empty for "scalar", where the compiler decides what a multiply-add becomes.
PYQUANT_API std::optional<double> measure_peak(double seconds = 0.05);

}  // namespace pyquant
