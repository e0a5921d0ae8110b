// The protocol's endpoints, apart from sockets.
// https://kserve.github.io/website/docs/concepts/architecture/data-plane/v2-protocol
#pragma once

#include <atomic>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "config.h"
#include "metrics.h"
#include "model.h"
#include "worker_pool.h"

namespace server {

struct HttpRequest {
  std::string_view method, target, body;
  BodyFormat format;
  std::string_view content_encoding;
};

struct HttpReply {
  unsigned status = 200;
  std::string content_type = "application/json";
  std::string body{};
  std::optional<std::size_t> json_length{};  // for Inference-Header-Content-Length
  std::string_view allow{};                  // of a 405: the method that there is
};

HttpReply error_reply(unsigned status, std::string_view message);

class Service {
 public:
  // Everything lives longer than the service.
  Service(const Model& model, const Config& config, Metrics& metrics, WorkerPool& workers);

  using Done = std::function<void(HttpReply)>;

  // Calls `done` once, here or later in another thread. The request must live until then.
  void handle(const HttpRequest& request, Done done);

  // From now on it is not ready, but still answers.
  void stop() { stopping_ = true; }
  bool stopping() const { return stopping_; }

  // Once it returns, no request is used any more.
  void finish() { workers_.finish(); }

 private:
  using Segments = std::vector<std::string_view>;
  struct Route;

  static const std::vector<Route>& routes();
  const Route& route(const HttpRequest& request) const;

  void server_metadata(const HttpRequest& request, Done done);
  void live(const HttpRequest& request, Done done);
  void ready(const HttpRequest& request, Done done);
  void model_metadata(const HttpRequest& request, Done done);
  void infer(const HttpRequest& request, Done done);
  void metrics_text(const HttpRequest& request, Done done);

  const Model& model_;
  const RequestLimits limits_;
  Metrics& metrics_;
  WorkerPool& workers_;
  std::atomic<bool> stopping_ = false;
};

}  // namespace server
