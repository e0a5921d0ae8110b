// JSON as text that may hold what a client sent.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace server {

// Bytes that are no UTF-8 are replaced rather than an error.
template <typename Json>
std::string json_text(const Json& value) {
  return value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace server
