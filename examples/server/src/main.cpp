// An inference server for one model: README.md says how to use it.
#include <cstdio>
#include <exception>

#include "config.h"
#include "metrics.h"
#include "model.h"
#include "server.h"
#include "service.h"
#include "worker_pool.h"

int main(int argc, char** argv) {
  const server::Config config = server::parse_command_line(argc, argv);
  try {
    const server::Model model = server::load_model(config.model, config.name);
    server::Metrics metrics;
    server::WorkerPool workers(*model.backend, config, metrics);
    server::Service service(model, config, metrics, workers);
    server::serve(config, service, metrics, [&](unsigned port) {
      std::printf("%s on http://%s:%u, %zu workers\n", model.name.c_str(), config.address.c_str(),
                  port, config.workers);
      std::fflush(stdout);
    });
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s: %s\n", argv[0], error.what());
    return 1;
  }
}
