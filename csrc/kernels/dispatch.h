// Which instruction sets there are, and which one is used.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace pyquant {

// The instruction sets that this build has kernels for and this CPU can run, best first.
std::vector<std::string> isas();

// Makes kernel_table() give that of `isa`, or with an empty name what it gives by itself: of
// PYQUANT_ISA, else the best. For tests and comparisons: what was prepared before keeps its
// kernels. Throws UnsupportedError where the name is unknown or the CPU lacks the instruction set.
void use_isa(std::string_view isa);

}  // namespace pyquant
