#include "metrics.h"

#include <algorithm>
#include <charconv>

namespace server {
namespace {

constexpr std::initializer_list<double> kSeconds = {0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05,
                                                    0.1,    0.2,   0.5,   1,     2,    5,    10};
constexpr std::initializer_list<double> kImages = {1, 2, 4, 8, 16, 32, 64};

std::string number(double value) {
  char text[32];
  return {text, std::to_chars(text, text + sizeof text, value).ptr};
}

void append_head(std::string& text, const std::string& name, const std::string& help,
                 const char* type) {
  text += "# HELP " + name + " " + help + "\n# TYPE " + name + " " + type + "\n";
}

void append(std::string& text, const std::string& name, const std::string& help, const char* type,
            double value) {
  append_head(text, name, help, type);
  text += name + " " + number(value) + "\n";
}

}  // namespace

Histogram::Histogram(std::initializer_list<double> bounds) : count_(bounds.size()) {
  std::ranges::copy(bounds, bounds_.begin());
}

void Histogram::observe(double value) {
  const auto end = bounds_.begin() + static_cast<std::ptrdiff_t>(count_);
  const auto bucket = std::lower_bound(bounds_.begin(), end, value) - bounds_.begin();
  buckets_[static_cast<std::size_t>(bucket)].fetch_add(1, std::memory_order_relaxed);
  sum_.fetch_add(value, std::memory_order_relaxed);
}

void Histogram::observe(std::chrono::steady_clock::duration value) {
  observe(std::chrono::duration<double>(value).count());
}

void Histogram::append_to(std::string& text, const std::string& name,
                          const std::string& help) const {
  append_head(text, name, help, "histogram");
  std::uint64_t total = 0;
  for (std::size_t bucket = 0; bucket <= count_; ++bucket) {
    total += buckets_[bucket].load(std::memory_order_relaxed);
    const std::string bound = bucket < count_ ? number(bounds_[bucket]) : "+Inf";
    text += name + "_bucket{le=\"" + bound + "\"} " + std::to_string(total) + "\n";
  }
  text += name + "_sum " + number(sum_.load(std::memory_order_relaxed)) + "\n";
  text += name + "_count " + std::to_string(total) + "\n";
}

Metrics::Metrics()
    : request_seconds(kSeconds),
      queue_seconds(kSeconds),
      run_seconds(kSeconds),
      run_images(kImages) {}

void Metrics::count_response(unsigned status) {
  responses_.at(status).fetch_add(1, std::memory_order_relaxed);
}

std::string Metrics::text() const {
  std::string text;
  append_head(text, "pyquant_http_responses_total", "Answers by HTTP status.", "counter");
  for (std::size_t status = 0; status < responses_.size(); ++status) {
    if (const std::uint64_t count = responses_[status].load(std::memory_order_relaxed)) {
      text += "pyquant_http_responses_total{status=\"" + std::to_string(status) + "\"} " +
              std::to_string(count) + "\n";
    }
  }
  append(text, "pyquant_connections", "Open connections.", "gauge",
         static_cast<double>(connections));
  append(text, "pyquant_queued_requests", "Requests that wait for a worker.", "gauge",
         static_cast<double>(queued));
  append(text, "pyquant_images_total", "Images that were computed.", "counter",
         static_cast<double>(images));
  request_seconds.append_to(text, "pyquant_request_seconds",
                            "From an infer request's last byte to its answer's first.");
  queue_seconds.append_to(text, "pyquant_queue_seconds", "Waiting for a worker.");
  run_seconds.append_to(text, "pyquant_run_seconds", "In the model, for each run.");
  run_images.append_to(text, "pyquant_run_images", "Images that were run together.");
  return text;
}

}  // namespace server
