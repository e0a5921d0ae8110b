#pragma once

#include <cstdint>

namespace pyquant::native {

constexpr std::int64_t divide_up(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

}  // namespace pyquant::native
