// One client: reads requests, has them answered one after the other, writes the answers.
#pragma once

#include <utility>  // which Boost 1.74 leaves to others

#include <boost/asio/awaitable.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http/message.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <memory>

#include "config.h"
#include "metrics.h"
#include "service.h"

namespace server {

class Connection : public std::enable_shared_from_this<Connection> {
 public:
  // The socket runs on a strand of its own.
  Connection(boost::asio::ip::tcp::socket socket, const Config& config, Service& service,
             Metrics& metrics);

  // Ends when the client leaves, is too slow or breaks the protocol; once the service stops, after
  // the request that is under way.
  boost::asio::awaitable<void> run();

  // The strand.
  boost::beast::tcp_stream::executor_type executor() { return stream_.get_executor(); }

  // In any thread: closes the connection unless a request is under way.
  void close_if_idle();

 private:
  using Parser = boost::beast::http::request_parser<boost::beast::http::string_body>;
  using Response = boost::beast::http::response<boost::beast::http::string_body>;

  boost::asio::awaitable<bool> wait_for_request();
  boost::asio::awaitable<bool> read(Parser& parser);
  boost::asio::awaitable<void> refuse(boost::beast::error_code error);
  boost::asio::awaitable<bool> write(HttpReply reply, unsigned version, bool keep_alive);
  boost::asio::awaitable<HttpReply> answer(const Parser::value_type& request);
  boost::asio::awaitable<void> linger();

  boost::beast::tcp_stream stream_;
  const Config& config_;
  Service& service_;
  Metrics& metrics_;
  boost::beast::flat_buffer buffer_;
  bool idle_ = true;
};

}  // namespace server
