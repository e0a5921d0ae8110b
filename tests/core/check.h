// CHECK prints what failed and ends the program, in release builds too. CHECK is for C, too.
#pragma once

#include <stdio.h>
#include <stdlib.h>

#define CHECK(condition)                                                      \
  do {                                                                        \
    if (!(condition)) {                                                       \
      fprintf(stderr, "%s:%d: failed: %s\n", __FILE__, __LINE__, #condition); \
      exit(1);                                                                \
    }                                                                         \
  } while (0)

// The expression throws this type of pyquant error, and its message holds the text.
#define CHECK_THROWS(type, text, expression)                              \
  do {                                                                    \
    bool thrown = false;                                                  \
    try {                                                                 \
      static_cast<void>(expression);                                      \
    } catch (const type& error) {                                         \
      thrown = std::string(error.what()).find(text) != std::string::npos; \
      if (!thrown) {                                                      \
        fprintf(stderr, "message: %s\n", error.what());                   \
      }                                                                   \
    }                                                                     \
    CHECK(thrown && #expression);                                         \
  } while (false)
