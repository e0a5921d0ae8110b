// CHECK prints what failed and ends the program, in release builds too.
#pragma once

#include <cstdio>
#include <cstdlib>

#define CHECK(condition)                                                           \
  do {                                                                             \
    if (!(condition)) {                                                            \
      std::fprintf(stderr, "%s:%d: failed: %s\n", __FILE__, __LINE__, #condition); \
      std::exit(1);                                                                \
    }                                                                              \
  } while (false)

// The expression throws this type of pyquant error, and its message holds the text.
#define CHECK_THROWS(type, text, expression)                              \
  do {                                                                    \
    bool thrown = false;                                                  \
    try {                                                                 \
      static_cast<void>(expression);                                      \
    } catch (const type& error) {                                         \
      thrown = std::string(error.what()).find(text) != std::string::npos; \
      if (!thrown) {                                                      \
        std::fprintf(stderr, "message: %s\n", error.what());              \
      }                                                                   \
    }                                                                     \
    CHECK(thrown && #expression);                                         \
  } while (false)
