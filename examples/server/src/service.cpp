#include "service.h"

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <utility>

#include "datatypes.h"
#include "infer_request.h"
#include "infer_response.h"
#include "json_text.h"
#include "request_error.h"

namespace server {
namespace {

using nlohmann::ordered_json;
using std::chrono::steady_clock;

std::vector<std::string_view> split(std::string_view path) {
  std::vector<std::string_view> segments;
  while (!path.empty()) {
    const std::size_t end = std::min(path.find('/'), path.size());
    segments.push_back(path.substr(0, end));
    path.remove_prefix(std::min(end + 1, path.size()));
  }
  return segments;
}

HttpReply json_reply(const ordered_json& value) { return {.body = json_text(value)}; }

// What is said of an exception of any kind.
HttpReply reply_to(const std::exception_ptr& error) {
  try {
    std::rethrow_exception(error);
  } catch (const RequestError& failure) {
    return error_reply(failure.status(), failure.what());
  } catch (const std::exception& failure) {
    return error_reply(500, failure.what());
  }
}

ordered_json describe(const std::vector<TensorSpec>& specs, bool takes_batches) {
  ordered_json list = ordered_json::array();
  for (const TensorSpec& spec : specs) {
    std::vector<std::int64_t> shape(spec.shape.begin(), spec.shape.end());
    if (takes_batches) {
      shape[0] = -1;
    }
    list.push_back({{"name", spec.name}, {"datatype", datatype(spec.dtype)}, {"shape", shape}});
  }
  return list;
}

// A request that is being computed.
struct Running {
  steady_clock::time_point arrived;
  InferRequest request;
  Service::Done done;
};

}  // namespace

HttpReply error_reply(unsigned status, std::string_view message) {
  return {.status = status, .body = json_text(ordered_json{{"error", message}})};
}

struct Service::Route {
  std::string_view method, path;  // a * stands for the model's name
  void (Service::*handler)(const HttpRequest&, Done);
};

const std::vector<Service::Route>& Service::routes() {
  static const std::vector<Route> routes = {
      {"GET", "/v2", &Service::server_metadata},
      {"GET", "/v2/health/live", &Service::live},
      {"GET", "/v2/health/ready", &Service::ready},
      {"GET", "/v2/models/*", &Service::model_metadata},
      {"GET", "/v2/models/*/ready", &Service::ready},
      {"POST", "/v2/models/*/infer", &Service::infer},
      {"GET", "/v2/models/*/versions/1", &Service::model_metadata},
      {"GET", "/v2/models/*/versions/1/ready", &Service::ready},
      {"POST", "/v2/models/*/versions/1/infer", &Service::infer},
      {"GET", "/metrics", &Service::metrics_text},
  };
  return routes;
}

Service::Service(const Model& model, const Config& config, Metrics& metrics, WorkerPool& workers)
    : model_(model),
      limits_{config.max_request_batch, config.max_pixels},
      metrics_(metrics),
      workers_(workers) {}

const Service::Route& Service::route(const HttpRequest& request) const {
  const Segments path = split(request.target.substr(0, request.target.find('?')));
  for (const Route& route : routes()) {
    const Segments pattern = split(route.path);
    const auto fits = [](std::string_view expected, std::string_view segment) {
      return expected == "*" || expected == segment;
    };
    if (!std::ranges::equal(pattern, path, fits)) {
      continue;
    }
    const auto wildcard = std::ranges::find(pattern, "*") - pattern.begin();
    if (wildcard < std::ssize(pattern) && path[static_cast<std::size_t>(wildcard)] != model_.name) {
      throw RequestError(404, "there is no such model; there is \"" + model_.name + "\"");
    }
    return route;
  }
  throw RequestError(404, "there is no " + std::string(request.target));
}

void Service::handle(const HttpRequest& request, Done done) {
  try {
    const Route& found = route(request);
    if (found.method != request.method) {
      HttpReply reply = error_reply(405, "only " + std::string(found.method) + " is allowed here");
      reply.allow = found.method;
      done(std::move(reply));
      return;
    }
    (this->*found.handler)(request, done);
  } catch (...) {
    done(reply_to(std::current_exception()));
  }
}

void Service::server_metadata(const HttpRequest&, Done done) {
  done(json_reply({{"name", "pyquant"},
                   {"version", SERVER_VERSION},
                   {"extensions", {"binary_tensor_data", "classification"}}}));
}

void Service::live(const HttpRequest&, Done done) { done({}); }

void Service::ready(const HttpRequest&, Done done) {
  done(stopping_ ? error_reply(503, "the server is about to stop") : HttpReply{});
}

void Service::model_metadata(const HttpRequest&, Done done) {
  const Backend& backend = *model_.backend;
  done(json_reply({{"name", model_.name},
                   {"versions", {kModelVersion}},
                   {"platform", backend.platform},
                   {"inputs", describe(backend.inputs, backend.takes_batches)},
                   {"outputs", describe(backend.outputs, backend.takes_batches)}}));
}

void Service::metrics_text(const HttpRequest&, Done done) {
  done({.content_type = "text/plain; version=0.0.4", .body = metrics_.text()});
}

void Service::infer(const HttpRequest& request, Done done) {
  if (!request.content_encoding.empty() && request.content_encoding != "identity") {
    throw RequestError(415, "compressed bodies are not supported");
  }
  const auto arrived = steady_clock::now();
  auto running = std::make_shared<Running>(
      arrived, parse_infer_request(model_, limits_, request.format, request.body), std::move(done));
  Job job;
  job.inputs = running->request.inputs;
  job.batch = running->request.batch;
  job.arrived = steady_clock::now();
  job.done = [this, running](const std::exception_ptr& error, const OutputData& data) {
    HttpReply reply;
    try {
      if (error) {
        std::rethrow_exception(error);
      }
      InferResponse response = make_infer_response(model_, running->request, data);
      reply.body = std::move(response.body);
      reply.json_length = response.json_length;
      if (response.json_length) {
        reply.content_type = "application/octet-stream";
      }
    } catch (...) {
      reply = reply_to(std::current_exception());
    }
    metrics_.request_seconds.observe(steady_clock::now() - running->arrived);
    running->done(std::move(reply));
  };
  if (!workers_.push(job)) {
    throw RequestError(503, "too many requests wait already");
  }
}

}  // namespace server
