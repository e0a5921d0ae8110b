// The most that this CPU can do, as a yardstick for kernels.
#pragma once

#include <optional>
#include <string>

namespace pyquant {

// The instruction set of the kernels in use: the best that the CPU has, or PYQUANT_ISA. Throws
// UnsupportedError where that names none of this build's, or one that the CPU lacks.
std::string isa_in_use();

// 8-bit multiply-adds per second that one core reaches with that instruction set's fastest
// multiply-add and nothing else, registers only: the best of many short bursts during `seconds`.
// Empty for "scalar", where the compiler decides what a multiply-add becomes.
std::optional<double> measure_peak(double seconds = 0.05);

}  // namespace pyquant
