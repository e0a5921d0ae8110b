// What is wrong with a request, and the HTTP status that says so.
#pragma once

#include <stdexcept>
#include <string>

namespace server {

class RequestError : public std::runtime_error {
 public:
  RequestError(unsigned status, const std::string& message)
      : std::runtime_error(message), status_(status) {}
  explicit RequestError(const std::string& message) : RequestError(400, message) {}

  unsigned status() const { return status_; }

 private:
  unsigned status_;
};

}  // namespace server
