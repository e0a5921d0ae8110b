// The exceptions that the library throws. Each has a Python counterpart in pyquant.errors.
#pragma once

#include <stdexcept>
#include <string>

namespace pyquant {

// Base of everything thrown on purpose.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// A Program (file or bytes) is truncated, foreign, of a newer version, or inconsistent.
class InvalidProgramError : public Error {
 public:
  using Error::Error;
};

// Run-time inputs do not have the shape, dtype or number that the Program or kernel takes.
class InvalidInputError : public Error {
 public:
  using Error::Error;
};

// The operator, engine or CPU feature asked for is not available; the message says why.
class UnsupportedError : public Error {
 public:
  using Error::Error;
};

// A file could not be opened, mapped, read or written.
class IoError : public Error {
 public:
  using Error::Error;
};

}  // namespace pyquant
