#include "config.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdlib>
#include <thread>

namespace server {

Config parse_command_line(int argc, char** argv) {
  Config config;
  CLI::App app("Serves a pyquant model over HTTP with the KServe v2 inference protocol.");
  app.option_defaults()->always_capture_default();

  const auto seconds = [&app](const char* name, std::chrono::seconds& value, const char* help) {
    app.add_option_function<std::uint32_t>(
           name, [&value](std::uint32_t count) { value = std::chrono::seconds(count); }, help)
        ->default_str(std::to_string(value.count()))
        ->check(CLI::Range(1, 86400));
  };
  const auto megabytes = [&app](const char* name, std::size_t& value, const char* help) {
    app.add_option_function<std::uint32_t>(
           name, [&value](std::uint32_t count) { value = std::size_t{count} << 20; }, help)
        ->default_str(std::to_string(value >> 20))
        ->check(CLI::Range(1, 4096));
  };

  app.add_option("model", config.model, "model.pyq, or a bundle's folder or manifest.json")
      ->required()
      ->check(CLI::ExistingPath);
  app.add_option("--name", config.name, "the model's name in URLs instead of its own");
  app.add_option("--address", config.address, "IP address to listen on; 0.0.0.0 for all");
  app.add_option("--port", config.port, "0 takes a free one");
  app.add_option("--workers", config.workers, "sessions that compute at once; 0: one per CPU")
      ->check(CLI::Range(0, 1024));
  app.add_option("--io-threads", config.io_threads, "threads for HTTP; 0: as many as workers")
      ->check(CLI::Range(0, 1024));
  app.add_option("--threads", config.threads, "threads inside of one run")
      ->check(CLI::Range(1, 256));
  app.add_option("--max-batch", config.max_batch, "images gathered from requests into one run")
      ->check(CLI::Range(1, 1024));
  app.add_option_function<std::uint32_t>(
         "--max-delay-us",
         [&config](std::uint32_t count) { config.max_delay = std::chrono::microseconds(count); },
         "how long a request may wait for others to be run with it")
      ->default_str("0")
      ->check(CLI::Range(0, 1000000));
  app.add_option("--max-request-batch", config.max_request_batch, "images in one request")
      ->check(CLI::Range(1, 1024));
  app.add_option("--max-queue", config.max_queue, "requests that may wait for a worker")
      ->check(CLI::Range(1, 1 << 20));
  app.add_option("--max-connections", config.max_connections, "beyond that, clients wait")
      ->check(CLI::Range(1, 1 << 20));
  megabytes("--max-body-mb", config.max_body_bytes, "size of a request");
  app.add_option("--max-pixels", config.max_pixels, "pixels of a picture")
      ->check(CLI::Range(1, 1 << 30));
  seconds("--read-timeout-s", config.read_timeout, "for a whole request to arrive");
  seconds("--idle-timeout-s", config.idle_timeout, "between two requests of a connection");
  seconds("--write-timeout-s", config.write_timeout, "for an answer to be taken");
  seconds("--drain-timeout-s", config.drain_timeout, "to finish requests after SIGTERM");

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    std::exit(app.exit(error));
  }
  if (config.workers == 0) {
    config.workers = std::max(1U, std::thread::hardware_concurrency());
  }
  if (config.io_threads == 0) {
    config.io_threads = config.workers;
  }
  return config;
}

}  // namespace server
