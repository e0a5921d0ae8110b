// The names that the protocol has for pyquant's element types.
#pragma once

#include <pyquant/tensor.h>

#include <string_view>

namespace server {

// What has no fixed size: pictures in a request, "score:index:label" in an answer.
constexpr std::string_view kBytes = "BYTES";

constexpr std::string_view datatype(pyquant::DType dtype) {
  constexpr std::string_view kNames[] = {"UINT8", "INT8", "INT32", "FP32"};
  return kNames[static_cast<std::size_t>(dtype)];
}

}  // namespace server
