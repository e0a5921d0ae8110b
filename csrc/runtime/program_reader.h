// Reads and verifies the bytes of a model.pyq. Every byte is untrusted: the FlatBuffers verifier
// runs first, then the checks of this file and of runtime/ops, and only then is anything used.
#pragma once

#include <cstddef>
#include <memory>
#include <span>

#include "runtime/program_impl.h"

namespace pyquant {

// The newest version of the schema that this reader understands.
inline constexpr std::uint32_t kProgramVersion = 1;

// Constants of the result point into `bytes`. Throws InvalidProgramError.
std::unique_ptr<Program::Impl> read_program(std::span<const std::byte> bytes);

}  // namespace pyquant
