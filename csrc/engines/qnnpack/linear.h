#pragma once

#include <cstdint>
#include <memory>

#include "engines/engine.h"

namespace pyquant::qnnpack_engine {

// For a Linear or a Conv2d with a 1x1 kernel, stride 1, no padding and one group.
std::unique_ptr<PreparedKernel> prepare_linear(const Operator& op, std::uint8_t output_min,
                                               std::uint8_t output_max);

}  // namespace pyquant::qnnpack_engine
