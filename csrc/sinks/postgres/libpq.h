// A connection to PostgreSQL that somebody else opened, used through the client library that it was opened
// with. Nothing is linked: the library's functions are looked up by name.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "rubriscope/core/big_endian.h"

struct pg_conn;
struct pg_result;

namespace rubriscope::postgres {

/// A statement that failed, or the way to the server.
struct ServerError : std::runtime_error {
  ServerError(const std::string& message, std::string sqlstate)
      : std::runtime_error(message), state(std::move(sqlstate)) {}
  std::string state;  ///< SQLSTATE; empty where no server took part
};

/// The functions of one libpq, as its documentation has them.
struct Libpq {
  int (*send_query)(pg_conn*, const char*);
  int (*send_query_params)(pg_conn*, const char*, int, const unsigned*, const char* const*, const int*,
                           const int*, int);
  pg_result* (*get_result)(pg_conn*);
  int (*result_status)(const pg_result*);
  char* (*result_error_field)(const pg_result*, int);
  char* (*result_error_message)(const pg_result*);
  void (*clear)(pg_result*);
  int (*put_copy_data)(pg_conn*, const char*, int);
  int (*put_copy_end)(pg_conn*, const char*);
  int (*flush)(pg_conn*);
  int (*consume_input)(pg_conn*);
  int (*is_busy)(pg_conn*);
  int (*socket)(const pg_conn*);
  char* (*error_message)(const pg_conn*);

  /// From a library, or one that is linked to it, as dlopen() gave it. Throws SinkError that names a function
  /// that is not there.
  static Libpq load(void* library);
};

/// The parameters of a statement, $1 first, in binary form.
class Parameters {
 public:
  void int8(std::int64_t value) {
    begin();
    put(value);
    end();
  }
  /// Text, or bytes.
  void text(std::string_view text) {
    begin();
    data_.append(text);
    end();
  }
  void null() { values_.push_back({0, -1}); }
  /// An array of value(item), which is a std::int64_t (bigint[]), a std::string_view (text[] or bytea[]) or
  /// one of them as an optional, for each item.
  template <class Items, class Value>
  void array(std::uint32_t element_oid, const Items& items, Value&& value) {
    begin();
    put(std::int32_t{items.empty() ? 0 : 1});  // dimensions
    put(std::int32_t{1});                      // there may be NULLs
    put(element_oid);
    if (!items.empty()) {
      put(static_cast<std::int32_t>(items.size()));
      put(std::int32_t{1});  // the lowest index
    }
    for (const auto& item : items) element(value(item));
    end();
  }

 private:
  friend class Connection;

  struct Value {
    std::size_t from;
    int bytes;  // -1 for NULL
  };

  void begin() { values_.push_back({data_.size(), 0}); }
  void end() { values_.back().bytes = static_cast<int>(data_.size() - values_.back().from); }

  template <class Integer>
  void put(Integer value) {
    char bytes[sizeof value];
    put_big_endian(bytes, value);
    data_.append(bytes, sizeof bytes);
  }
  void element(std::int64_t value) {
    put(std::int32_t{8});
    put(value);
  }
  void element(std::string_view bytes) {
    put(static_cast<std::int32_t>(bytes.size()));
    data_.append(bytes);
  }
  template <class Value>
  void element(const std::optional<Value>& value) {
    if (value) {
      element(*value);
    } else {
      put(std::int32_t{-1});
    }
  }

  std::string data_;
  std::vector<Value> values_;
};

/// Every method throws ServerError; the connection is then of no further use.
class Connection {
 public:
  /// `connection` is a PGconn* of the library, idle, and outlives this.
  Connection(void* library, void* connection);

  /// Runs statements that give no rows.
  void run(const char* sql);
  void run(const char* sql, const Parameters& parameters);

  /// Runs statements of which the last is a COPY … FROM STDIN, up to there.
  void begin_copy(const char* sql);
  /// Sends a piece of the stream; returns when the system has taken it.
  void copy(std::string_view piece);
  /// Tells the server of the stream's end.
  void end_copy();
  /// Returns when the server has stored it.
  void finish_copy() { finish(Until::end); }

 private:
  enum class Until { end, copy };

  void sent(int accepted);
  void flush();
  void wait(short events);
  void finish(Until until);
  ServerError failure(const pg_result* result) const;
  [[noreturn]] void lost();

  const Libpq libpq_;
  pg_conn* const connection_;
};

}  // namespace rubriscope::postgres
