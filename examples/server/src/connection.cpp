#include "connection.h"

#include <boost/asio/async_result.hpp>
#include <boost/asio/dispatch.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/http/empty_body.hpp>
#include <boost/beast/http/error.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/write.hpp>
#include <map>
#include <utility>

namespace server {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;

constexpr std::size_t kReadBytes = 64 << 10;
// How long a client may go on sending what nobody reads, so that it gets to see the answer.
constexpr std::chrono::seconds kLinger{2};

auto await(beast::error_code& error) { return asio::redirect_error(asio::use_awaitable, error); }

std::string_view view(beast::string_view text) { return {text.data(), text.size()}; }

// The status for what the parser refuses, 400 for most.
unsigned status_of(beast::error_code error) {
  static const std::map<http::error, unsigned> statuses = {
      {http::error::header_limit, 431},
      {http::error::body_limit, 413},
      {http::error::bad_version, 505},
  };
  for (const auto& [known, status] : statuses) {
    if (error == known) {
      return status;
    }
  }
  return 400;
}

HttpRequest describe(const http::request<http::string_body>& request) {
  HttpRequest result;
  result.method = view(request.method_string());
  result.target = view(request.target());
  result.body = request.body();
  result.format.content_type = view(request[http::field::content_type]);
  result.content_encoding = view(request[http::field::content_encoding]);
  const auto length = request.find("Inference-Header-Content-Length");
  if (length != request.end()) {
    result.format.json_length = view(length->value());
  }
  return result;
}

}  // namespace

Connection::Connection(asio::ip::tcp::socket socket, const Config& config, Service& service,
                       Metrics& metrics)
    : stream_(std::move(socket)), config_(config), service_(service), metrics_(metrics) {
  beast::error_code ignored;
  stream_.socket().set_option(asio::ip::tcp::no_delay(true), ignored);
}

asio::awaitable<void> Connection::run() {
  while (co_await wait_for_request()) {
    Parser parser;
    if (!co_await read(parser)) {
      break;
    }
    const auto& request = parser.get();
    HttpReply reply = co_await answer(request);
    const bool keep_alive = request.keep_alive() && !service_.stopping();
    if (!co_await write(std::move(reply), request.version(), keep_alive) || !keep_alive) {
      break;
    }
  }
  beast::error_code ignored;
  stream_.socket().shutdown(asio::ip::tcp::socket::shutdown_both, ignored);
}

void Connection::close_if_idle() {
  asio::dispatch(stream_.get_executor(), [self = shared_from_this()] {
    if (self->idle_) {
      self->stream_.close();
    }
  });
}

// True once the first bytes of a request are there.
asio::awaitable<bool> Connection::wait_for_request() {
  if (buffer_.size() > 0) {  // the client did not wait for the answer to the request before
    co_return true;
  }
  idle_ = true;
  stream_.expires_after(config_.idle_timeout);
  beast::error_code error;
  const std::size_t bytes =
      co_await stream_.async_read_some(buffer_.prepare(kReadBytes), await(error));
  buffer_.commit(bytes);
  idle_ = false;
  co_return !error;
}

// Reads a request; false if there is no sense in going on.
asio::awaitable<bool> Connection::read(Parser& parser) {
  parser.header_limit(static_cast<std::uint32_t>(config_.max_header_bytes));
  parser.body_limit(config_.max_body_bytes);
  stream_.expires_after(config_.read_timeout);
  beast::error_code error;
  co_await http::async_read_header(stream_, buffer_, parser, await(error));
  if (!error && beast::iequals(parser.get()[http::field::expect], "100-continue")) {
    http::response<http::empty_body> go_on(http::status::continue_, parser.get().version());
    co_await http::async_write(stream_, go_on, await(error));
  }
  if (!error) {
    co_await http::async_read(stream_, buffer_, parser, await(error));
  }
  if (error) {
    co_await refuse(error);
  }
  co_return !error;
}

// Says what was wrong, if the client can still hear it.
asio::awaitable<void> Connection::refuse(beast::error_code error) {
  const bool in_protocol = error.category() == make_error_code(http::error::bad_method).category();
  if (!in_protocol || error == http::error::end_of_stream ||
      error == http::error::partial_message) {
    co_return;
  }
  if (co_await write(error_reply(status_of(error), error.message()), 11, false)) {
    co_await linger();
  }
}

asio::awaitable<HttpReply> Connection::answer(const Parser::value_type& request) {
  const HttpRequest described = describe(request);
  // Goes on in this connection's strand, from whichever thread the answer comes. The guard keeps
  // the event loop from ending before.
  co_return co_await asio::async_initiate<const asio::use_awaitable_t<>&, void(HttpReply)>(
      [&](auto handler) {
        auto waiting = std::make_shared<decltype(handler)>(std::move(handler));
        auto guard = asio::make_work_guard(stream_.get_executor());
        service_.handle(described, [waiting, guard](HttpReply reply) {
          asio::post(guard.get_executor(), [waiting, reply = std::move(reply)]() mutable {
            (*waiting)(std::move(reply));
          });
        });
      },
      asio::use_awaitable);
}

asio::awaitable<bool> Connection::write(HttpReply reply, unsigned version, bool keep_alive) {
  metrics_.count_response(reply.status);
  Response response(static_cast<http::status>(reply.status), version);
  response.set(http::field::content_type, reply.content_type);
  if (reply.json_length) {
    response.set("Inference-Header-Content-Length", std::to_string(*reply.json_length));
  }
  if (!reply.allow.empty()) {
    response.set(http::field::allow, beast::string_view(reply.allow.data(), reply.allow.size()));
  }
  response.keep_alive(keep_alive);
  response.body() = std::move(reply.body);
  response.prepare_payload();
  stream_.expires_after(config_.write_timeout);
  beast::error_code error;
  co_await http::async_write(stream_, response, await(error));
  co_return !error;
}

// Closing with unread data would make the system throw away the answer on its way.
asio::awaitable<void> Connection::linger() {
  beast::error_code error;
  stream_.socket().shutdown(asio::ip::tcp::socket::shutdown_send, error);
  stream_.expires_after(kLinger);
  while (!error) {
    buffer_.clear();
    co_await stream_.async_read_some(buffer_.prepare(kReadBytes), await(error));
  }
}

}  // namespace server
