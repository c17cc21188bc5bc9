// Thin ownership over the sqlite3 C interface: a connection and its statements.
#pragma once

#include <sqlite3.h>

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "rubriscope/core/errors.h"

namespace rubriscope::sqlite {

/// An SQLite result code that is not success.
struct DatabaseError : Error {
  DatabaseError(int result_code, const std::string& message) : Error(message), code(result_code) {}
  int code;  ///< extended result code

  int primary() const { return code & 0xFF; }
};

class Database;

/// A prepared statement. Texts and blobs are bound by reference: they must live until the next bind or reset.
class Statement {
 public:
  Statement() = default;
  Statement(Database& database, std::string_view sql, bool persistent = false);

  explicit operator bool() const { return statement_ != nullptr; }

  Statement& bind(int index, std::int64_t value) {
    sqlite3_bind_int64(statement_.get(), index, value);
    return *this;
  }
  Statement& bind(int index, double value) {
    sqlite3_bind_double(statement_.get(), index, value);
    return *this;
  }
  Statement& bind(int index, std::string_view text);
  Statement& bind_blob(int index, std::span<const std::byte> bytes);
  Statement& bind_null(int index) {
    sqlite3_bind_null(statement_.get(), index);
    return *this;
  }

  /// True while there is a row. Throws DatabaseError.
  bool step() {
    const int result = sqlite3_step(statement_.get());
    if (result == SQLITE_ROW) return true;
    if (result != SQLITE_DONE) fail(result);
    return false;
  }
  /// Runs to the end and resets; for statements without rows.
  void run();
  void reset() noexcept { sqlite3_reset(statement_.get()); }

  /// SQLITE_INTEGER, SQLITE_FLOAT, SQLITE_TEXT, SQLITE_BLOB or SQLITE_NULL.
  int type(int column) { return sqlite3_column_type(statement_.get(), column); }
  bool is_null(int column) { return sqlite3_column_type(statement_.get(), column) == SQLITE_NULL; }
  std::int64_t integer(int column) { return sqlite3_column_int64(statement_.get(), column); }
  double real(int column) { return sqlite3_column_double(statement_.get(), column); }
  /// Borrowed until the next step or reset.
  std::string_view text(int column);
  std::span<const std::byte> blob(int column);

 private:
  [[noreturn]] void fail(int result);

  struct Finalize {
    void operator()(sqlite3_stmt* statement) const { sqlite3_finalize(statement); }
  };
  std::unique_ptr<sqlite3_stmt, Finalize> statement_;
};

/// One connection. Not for several threads at once.
class Database {
 public:
  Database() = default;
  /// Throws DatabaseError when the file cannot be opened. `flags` are SQLITE_OPEN_*.
  Database(const std::string& path, int flags, int busy_timeout_ms);

  explicit operator bool() const { return handle_ != nullptr; }
  sqlite3* handle() const { return handle_.get(); }

  /// Runs SQL that returns no rows of interest. Throws DatabaseError.
  void execute(const char* sql);
  /// The first column of the first row. Throws DatabaseError when there is none.
  std::int64_t integer(std::string_view sql);
  std::string text(std::string_view sql);
  /// Whether the file was deleted or replaced since it was opened.
  bool file_has_moved() const;
  void close() { handle_.reset(); }

 private:
  struct Close {
    void operator()(sqlite3* handle) const { sqlite3_close_v2(handle); }
  };
  std::unique_ptr<sqlite3, Close> handle_;
};

/// A transaction that is rolled back unless committed.
class Transaction {
 public:
  /// Takes the write lock at once, so that a busy database shows here and not halfway.
  explicit Transaction(Database& database) : database_(database) { database_.execute("BEGIN IMMEDIATE"); }
  ~Transaction();
  Transaction(const Transaction&) = delete;
  Transaction& operator=(const Transaction&) = delete;

  void commit() {
    database_.execute("COMMIT");
    open_ = false;
  }

 private:
  Database& database_;
  bool open_{true};
};

}  // namespace rubriscope::sqlite
