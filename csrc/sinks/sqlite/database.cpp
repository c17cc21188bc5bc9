#include "rubriscope/sinks/sqlite/database.h"

namespace rubriscope::sqlite {
namespace {

[[noreturn]] void throw_error(sqlite3* handle, int result, std::string_view sql) {
  // The connection's message belongs to its last call; use it only when it is about this result.
  std::string message = sqlite3_errstr(result);
  if (handle != nullptr && (sqlite3_errcode(handle) & 0xFF) == (result & 0xFF)) {
    message = sqlite3_errmsg(handle);
    result = sqlite3_extended_errcode(handle);
  }
  message += " (SQLite code " + std::to_string(result) + ")";
  if (!sql.empty()) message += " in: " + std::string(sql.substr(0, 120));
  throw DatabaseError(result, message);
}

}  // namespace

Statement::Statement(Database& database, std::string_view sql, bool persistent) {
  sqlite3_stmt* statement = nullptr;
  const int result = sqlite3_prepare_v3(database.handle(), sql.data(), static_cast<int>(sql.size()),
                                        persistent ? SQLITE_PREPARE_PERSISTENT : 0, &statement, nullptr);
  if (result != SQLITE_OK) throw_error(database.handle(), result, sql);
  statement_.reset(statement);
}

Statement& Statement::bind(int index, std::string_view text) {
  // A null pointer would bind NULL, and an empty view may hold one.
  const char* const data = text.data() != nullptr ? text.data() : "";
  const int result =
      sqlite3_bind_text64(statement_.get(), index, data, text.size(), SQLITE_STATIC, SQLITE_UTF8);
  if (result != SQLITE_OK) fail(result);
  return *this;
}

Statement& Statement::bind_blob(int index, std::span<const std::byte> bytes) {
  const int result = sqlite3_bind_blob64(statement_.get(), index, bytes.data(), bytes.size(), SQLITE_STATIC);
  if (result != SQLITE_OK) fail(result);
  return *this;
}

void Statement::run() {
  while (step()) {
  }
  reset();
}

std::string_view Statement::text(int column) {
  const auto* const data = reinterpret_cast<const char*>(sqlite3_column_text(statement_.get(), column));
  if (data == nullptr) return {};
  return {data, static_cast<std::size_t>(sqlite3_column_bytes(statement_.get(), column))};
}

std::span<const std::byte> Statement::blob(int column) {
  const auto* const data = static_cast<const std::byte*>(sqlite3_column_blob(statement_.get(), column));
  return {data, static_cast<std::size_t>(sqlite3_column_bytes(statement_.get(), column))};
}

void Statement::fail(int result) {
  sqlite3* const handle = sqlite3_db_handle(statement_.get());
  const char* const sql = sqlite3_sql(statement_.get());
  try {
    throw_error(handle, result, sql != nullptr ? sql : "");
  } catch (...) {
    sqlite3_reset(statement_.get());
    throw;
  }
}

Database::Database(const std::string& path, int flags, int busy_timeout_ms) {
  sqlite3* handle = nullptr;
  const int result = sqlite3_open_v2(path.c_str(), &handle, flags, nullptr);
  handle_.reset(handle);
  if (result != SQLITE_OK) throw_error(handle, result, "");
  sqlite3_extended_result_codes(handle, 1);
  sqlite3_busy_timeout(handle, busy_timeout_ms);
}

void Database::execute(const char* sql) {
  const int result = sqlite3_exec(handle_.get(), sql, nullptr, nullptr, nullptr);
  if (result != SQLITE_OK) throw_error(handle_.get(), result, sql);
}

std::int64_t Database::integer(std::string_view sql) {
  Statement statement(*this, sql);
  if (!statement.step()) throw DatabaseError(SQLITE_ERROR, "no row from: " + std::string(sql));
  return statement.integer(0);
}

std::string Database::text(std::string_view sql) {
  Statement statement(*this, sql);
  if (!statement.step()) throw DatabaseError(SQLITE_ERROR, "no row from: " + std::string(sql));
  return std::string(statement.text(0));
}

bool Database::file_has_moved() const {
  int moved = 0;
  return sqlite3_file_control(handle_.get(), "main", SQLITE_FCNTL_HAS_MOVED, &moved) == SQLITE_OK &&
         moved != 0;
}

Transaction::~Transaction() {
  // SQLite has rolled back by itself after some errors; then there is nothing left to end.
  if (open_ && !sqlite3_get_autocommit(database_.handle())) {
    sqlite3_exec(database_.handle(), "ROLLBACK", nullptr, nullptr, nullptr);
  }
}

}  // namespace rubriscope::sqlite
