// The entry points that a fuzzing engine calls (libFuzzer's names), and the driver in its absence.
#pragma once

#include <cstddef>
#include <cstdint>

// Reads and runs the bytes as a Program. Aborts where pyquant breaks its word.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

// Changes the Program in data[0, size) in place and returns its new size, at most max_size: mostly
// field by field, so that what comes out is often a valid Program; else byte by byte.
extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size,
                                               std::size_t max_size, unsigned int seed);

// Changes bytes without knowing what they mean. libFuzzer brings one; fuzz_main.cpp another.
extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t max_size);
