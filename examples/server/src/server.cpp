#include "server.h"

#include <utility>  // which Boost 1.74 leaves to others

#include <boost/asio/awaitable.hpp>
#include <boost/asio/bind_executor.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <csignal>
#include <cstdio>
#include <memory>
#include <set>
#include <thread>
#include <vector>

#include "connection.h"

namespace server {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using std::chrono::milliseconds;

// When the server stops, clients that are about to send a request may still do so for a moment, and
// are told in the answer that it was the last.
constexpr milliseconds kGrace{200};
constexpr milliseconds kPoll{10};

class Server {
 public:
  Server(const Config& config, Service& service, Metrics& metrics);

  std::uint16_t port() const { return acceptor_.local_endpoint().port(); }
  void run();

 private:
  asio::awaitable<void> accept();
  asio::awaitable<void> serve(std::shared_ptr<Connection> connection);
  asio::awaitable<void> stop_on_signal();
  asio::awaitable<void> drain();
  asio::awaitable<void> sleep(milliseconds time);

  const Config& config_;
  Service& service_;
  Metrics& metrics_;
  asio::io_context context_;
  // Where everything runs that touches what stands below.
  asio::strand<asio::io_context::executor_type> strand_;
  tcp::acceptor acceptor_;
  asio::signal_set signals_;
  std::set<std::shared_ptr<Connection>> connections_;
};

Server::Server(const Config& config, Service& service, Metrics& metrics)
    : config_(config),
      service_(service),
      metrics_(metrics),
      context_(static_cast<int>(config.io_threads)),
      strand_(asio::make_strand(context_)),
      acceptor_(strand_, tcp::endpoint(asio::ip::make_address(config.address), config.port)),
      signals_(strand_, SIGTERM, SIGINT) {}

void Server::run() {
  std::vector<std::jthread> threads;
  {
    // Threads wait for work, and end without any if not all of them can be started.
    const auto work = asio::make_work_guard(context_);
    for (std::size_t index = 1; index < config_.io_threads; ++index) {
      threads.emplace_back([this] { context_.run(); });
    }
    asio::co_spawn(strand_, accept(), asio::detached);
    asio::co_spawn(strand_, stop_on_signal(), asio::detached);
  }
  context_.run();
  threads.clear();    // joins
  service_.finish();  // before the connections go, whose requests are computed
}

asio::awaitable<void> Server::accept() {
  boost::system::error_code error;
  while (acceptor_.is_open()) {
    if (connections_.size() >= config_.max_connections) {
      co_await sleep(kPoll);
      continue;
    }
    tcp::socket socket(asio::make_strand(context_));
    co_await acceptor_.async_accept(socket, asio::redirect_error(asio::use_awaitable, error));
    if (error) {  // e.g. no file descriptors left
      co_await sleep(kPoll);
      continue;
    }
    auto connection = std::make_shared<Connection>(std::move(socket), config_, service_, metrics_);
    connections_.insert(connection);
    metrics_.connections = static_cast<std::int64_t>(connections_.size());
    asio::co_spawn(strand_, serve(std::move(connection)), asio::detached);
  }
}

asio::awaitable<void> Server::serve(std::shared_ptr<Connection> connection) {
  try {
    co_await asio::co_spawn(connection->executor(), connection->run(), asio::use_awaitable);
  } catch (const std::exception& error) {  // e.g. no memory
    std::fprintf(stderr, "a connection was closed: %s\n", error.what());
  }
  connections_.erase(connection);
  metrics_.connections = static_cast<std::int64_t>(connections_.size());
}

asio::awaitable<void> Server::stop_on_signal() {
  co_await signals_.async_wait(asio::use_awaitable);
  signals_.clear();  // the next one ends the process at once
  std::puts("stopping");
  service_.stop();
  acceptor_.close();
  co_await drain();
}

// Once the last connection has gone, the event loop has nothing left to do and ends.
asio::awaitable<void> Server::drain() {
  milliseconds waited{0};
  for (; !connections_.empty() && waited < config_.drain_timeout; waited += kPoll) {
    co_await sleep(kPoll);
    if (waited >= kGrace) {
      for (const std::shared_ptr<Connection>& connection : connections_) {
        connection->close_if_idle();
      }
    }
  }
  if (!connections_.empty()) {
    std::fprintf(stderr, "%zu connections did not finish in time\n", connections_.size());
    context_.stop();
  }
}

asio::awaitable<void> Server::sleep(milliseconds time) {
  asio::steady_timer timer(strand_, time);
  co_await timer.async_wait(asio::use_awaitable);
}

}  // namespace

void serve(const Config& config, Service& service, Metrics& metrics,
           const std::function<void(std::uint16_t port)>& listening) {
  Server server(config, service, metrics);
  listening(server.port());
  server.run();
}

}  // namespace server
