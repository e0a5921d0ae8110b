// What the command line says.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>

namespace server {

struct Config {
  std::string model;  // a model.pyq, or a bundle's folder or manifest.json
  std::string name;   // in URLs; without one, the model's own
  std::string address = "127.0.0.1";
  std::uint16_t port = 8000;  // 0: any free one

  std::size_t workers = 0;     // sessions that compute at the same time; 0: one per CPU
  std::size_t io_threads = 0;  // threads that read, parse and write; 0: as many as workers
  int threads = 1;             // inside of one run

  std::int64_t max_batch = 1;           // images in a run that are gathered from several requests
  std::int64_t max_request_batch = 16;  // images in one request
  std::chrono::microseconds max_delay{0};  // that a request may wait for others
  std::size_t max_queue = 256;             // requests that wait for a worker; beyond that, 503

  std::size_t max_connections = 1024;
  std::size_t max_header_bytes = 16 << 10;
  std::size_t max_body_bytes = 32 << 20;
  std::size_t max_pixels = 50'000'000;     // of a picture
  std::chrono::seconds read_timeout{30};   // for a whole request, from its first byte on
  std::chrono::seconds idle_timeout{60};   // between requests
  std::chrono::seconds write_timeout{30};  // for a whole answer
  std::chrono::seconds drain_timeout{30};  // for what is under way when the server is told to stop
};

// Exits the process after --help and for arguments that make no sense.
Config parse_command_line(int argc, char** argv);

}  // namespace server
