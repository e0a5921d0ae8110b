// The exceptions that the library throws. Each has a Python counterpart in pyquant.errors. Besides
// them, only std::bad_alloc comes out of it. An object whose function threw can be used again or
// destroyed.
#pragma once

#include <stdexcept>
#include <string>

#include "pyquant/export.h"

namespace pyquant {

// Base of everything thrown on purpose.
class PYQUANT_API Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// A Program (file or bytes) is truncated, foreign, of a newer version, or inconsistent.
class PYQUANT_API InvalidProgramError : public Error {
 public:
  using Error::Error;
};

// Run-time inputs do not have the shape, dtype or number that the Program or kernel takes.
class PYQUANT_API InvalidInputError : public Error {
 public:
  using Error::Error;
};

// The operator, engine or CPU feature asked for is not available; the message says why.
class PYQUANT_API UnsupportedError : public Error {
 public:
  using Error::Error;
};

// A file could not be opened, mapped, read or written.
class PYQUANT_API IoError : public Error {
 public:
  using Error::Error;
};

}  // namespace pyquant
