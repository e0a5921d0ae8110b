// Which transposed convolutions the native engine runs; see conv_transpose2d.cpp.
#pragma once

#include <string>

#include "pyquant/operator.h"

namespace pyquant::native {

// Empty if `conv` can be made of convolutions; else the reason why not.
std::string why_not_convolutions(const ConvTranspose2d& conv);

}  // namespace pyquant::native
