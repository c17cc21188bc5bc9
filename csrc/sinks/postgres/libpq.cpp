#include "rubriscope/sinks/postgres/libpq.h"

#include <dlfcn.h>
#include <poll.h>

#include <algorithm>
#include <cerrno>
#include <limits>
#include <memory>

#include "rubriscope/core/errors.h"

namespace rubriscope::postgres {

namespace {

// From libpq-fe.h and postgres_ext.h; they are part of its binary interface.
constexpr int kBadResponse = 5;
constexpr int kFatalError = 7;
constexpr int kCopyIn = 4;
constexpr int kSqlstate = 'C';
constexpr int kMessage = 'M';
constexpr int kDetail = 'D';

template <class Function>
void look_up(void* library, const char* name, Function*& function) {
  function = reinterpret_cast<Function*>(dlsym(library, name));
  if (function == nullptr) {
    throw SinkError(std::string("PostgreSQL's client library has no function ") + name, false);
  }
}

/// A message of the library without its "ERROR:  ", in whatever language.
std::string without_severity(std::string message) {
  const std::size_t colon = message.find(":  ");
  if (colon != std::string::npos && message.find_first_of(" \n") > colon) message.erase(0, colon + 3);
  return message;
}

}  // namespace

Libpq Libpq::load(void* library) {
  Libpq found{};
  look_up(library, "PQsendQuery", found.send_query);
  look_up(library, "PQsendQueryParams", found.send_query_params);
  look_up(library, "PQgetResult", found.get_result);
  look_up(library, "PQresultStatus", found.result_status);
  look_up(library, "PQresultErrorField", found.result_error_field);
  look_up(library, "PQresultErrorMessage", found.result_error_message);
  look_up(library, "PQclear", found.clear);
  look_up(library, "PQputCopyData", found.put_copy_data);
  look_up(library, "PQputCopyEnd", found.put_copy_end);
  look_up(library, "PQflush", found.flush);
  look_up(library, "PQconsumeInput", found.consume_input);
  look_up(library, "PQisBusy", found.is_busy);
  look_up(library, "PQsocket", found.socket);
  look_up(library, "PQerrorMessage", found.error_message);
  return found;
}

Connection::Connection(void* library, void* connection)
    : libpq_(Libpq::load(library)), connection_(static_cast<pg_conn*>(connection)) {}

ServerError Connection::failure(const pg_result* result) const {
  const auto field = [&](int code) {
    const char* const text = libpq_.result_error_field(result, code);
    return std::string(text == nullptr ? "" : text);
  };
  std::string message = field(kMessage);
  if (message.empty()) message = without_severity(libpq_.result_error_message(result));
  if (const std::string detail = field(kDetail); !detail.empty()) message += " DETAIL: " + detail;
  return {message, field(kSqlstate)};
}

// What the server said before it closed the connection says more than that it is closed.
void Connection::lost() {
  const std::string message = without_severity(libpq_.error_message(connection_));
  std::optional<ServerError> said;
  libpq_.consume_input(connection_);
  libpq_.put_copy_end(connection_, nullptr);  // within a COPY the library looks at errors once it has ended
  while (libpq_.is_busy(connection_) == 0) {
    const std::unique_ptr<pg_result, void (*)(pg_result*)> result(libpq_.get_result(connection_),
                                                                  libpq_.clear);
    if (result == nullptr || libpq_.result_status(result.get()) == kCopyIn) break;
    ServerError error = failure(result.get());
    if (!error.state.empty()) said = std::move(error);
  }
  if (said) throw *said;
  throw ServerError(message.empty() ? "the connection is lost" : message, "");
}

void Connection::wait(short events) {
  pollfd socket{libpq_.socket(connection_), events, 0};
  if (socket.fd < 0) lost();
  while (poll(&socket, 1, -1) < 0) {
    if (errno != EINTR) lost();
  }
  if ((socket.revents & ~POLLOUT) != 0 && libpq_.consume_input(connection_) == 0) lost();
}

void Connection::flush() {
  for (;;) {
    const int left = libpq_.flush(connection_);
    if (left == 0) return;
    if (left < 0) lost();
    wait(POLLIN | POLLOUT);
  }
}

void Connection::sent(int accepted) {
  if (accepted != 1) lost();
  flush();
}

void Connection::finish(Until until) {
  std::optional<ServerError> failed;
  for (;;) {
    try {
      while (libpq_.is_busy(connection_) != 0) wait(POLLIN);
    } catch (const ServerError&) {
      if (failed) throw *failed;
      throw;
    }
    const std::unique_ptr<pg_result, void (*)(pg_result*)> result(libpq_.get_result(connection_),
                                                                  libpq_.clear);
    if (result == nullptr) break;
    const int status = libpq_.result_status(result.get());
    if (status == kCopyIn) {
      if (until == Until::copy) return;
      lost();
    }
    if (!failed && (status == kFatalError || status == kBadResponse)) failed = failure(result.get());
  }
  if (failed) throw *failed;
}

void Connection::run(const char* sql) {
  sent(libpq_.send_query(connection_, sql));
  finish(Until::end);
}

void Connection::run(const char* sql, const Parameters& parameters) {
  const std::size_t count = parameters.values_.size();
  std::vector<const char*> values(count);
  std::vector<int> lengths(count);
  const std::vector<int> formats(count, 1);
  for (std::size_t i = 0; i < count; ++i) {
    const Parameters::Value& value = parameters.values_[i];
    values[i] = value.bytes < 0 ? nullptr : parameters.data_.data() + value.from;
    lengths[i] = std::max(value.bytes, 0);
  }
  sent(libpq_.send_query_params(connection_, sql, static_cast<int>(count), nullptr, values.data(),
                                lengths.data(), formats.data(), 0));
  finish(Until::end);
}

void Connection::begin_copy(const char* sql) {
  sent(libpq_.send_query(connection_, sql));
  finish(Until::copy);
}

void Connection::copy(std::string_view piece) {
  // The library takes an int.
  constexpr std::size_t kMost = std::numeric_limits<int>::max() / 2;
  for (; !piece.empty(); piece.remove_prefix(std::min(piece.size(), kMost))) {
    const int bytes = static_cast<int>(std::min(piece.size(), kMost));
    int accepted = 0;
    while ((accepted = libpq_.put_copy_data(connection_, piece.data(), bytes)) == 0) flush();
    sent(accepted);
  }
}

void Connection::end_copy() {
  int accepted = 0;
  while ((accepted = libpq_.put_copy_end(connection_, nullptr)) == 0) flush();
  sent(accepted);
}

}  // namespace rubriscope::postgres
