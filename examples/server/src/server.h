// Accepts clients, and leaves when it is told to.
#pragma once

#include <cstdint>
#include <functional>

#include "config.h"
#include "metrics.h"
#include "service.h"

namespace server {

// Serves, in this thread and others, until SIGTERM or SIGINT, and until what was under way then is
// finished or the time for that is over. Calls `listening` with the port once clients can connect.
// Throws boost::system::system_error if they cannot.
void serve(const Config& config, Service& service, Metrics& metrics,
           const std::function<void(std::uint16_t port)>& listening);

}  // namespace server
