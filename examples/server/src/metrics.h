// What /metrics tells, in the text format of Prometheus. All of it may be used by any thread.
// https://prometheus.io/docs/instrumenting/exposition_formats/
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>

namespace server {

class Histogram {
 public:
  static constexpr std::size_t kMaxBounds = 16;

  // Upper bounds of the buckets, in ascending order, without the infinite one.
  explicit Histogram(std::initializer_list<double> bounds);

  void observe(double value);
  void observe(std::chrono::steady_clock::duration value);
  void append_to(std::string& text, const std::string& name, const std::string& help) const;

 private:
  std::array<double, kMaxBounds> bounds_{};
  std::size_t count_ = 0;
  std::array<std::atomic<std::uint64_t>, kMaxBounds + 1> buckets_{};  // each by itself
  std::atomic<double> sum_ = 0;
};

class Metrics {
 public:
  Metrics();

  void count_response(unsigned status);
  std::string text() const;

  std::atomic<std::int64_t> connections = 0;
  std::atomic<std::int64_t> queued = 0;
  std::atomic<std::uint64_t> images = 0;
  Histogram request_seconds;  // of an infer request, from its last byte to its answer's first
  Histogram queue_seconds;    // of those, waiting for a worker
  Histogram run_seconds;      // in the model, per run
  Histogram run_images;       // together in one run

 private:
  std::array<std::atomic<std::uint64_t>, 600> responses_{};  // by status
};

}  // namespace server
