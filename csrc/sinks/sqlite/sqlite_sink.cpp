#include "rubriscope/sinks/sqlite/sqlite_sink.h"

#include <filesystem>

#include "rubriscope/core/errors.h"
#include "rubriscope/sinks/sqlite/connection.h"
#include "rubriscope/sinks/sqlite/format.h"
#include "rubriscope/sinks/sqlite/vault_store.h"

namespace rubriscope {

using sqlite::Database;
using sqlite::DatabaseError;
using sqlite::Statement;
using sqlite::Transaction;

namespace {

/// SQLite's codes that go away when their cause does.
bool is_transient(int primary_code) {
  switch (primary_code) {
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
    case SQLITE_FULL:
    case SQLITE_IOERR:
    case SQLITE_READONLY:
    case SQLITE_CANTOPEN:
    case SQLITE_NOMEM:
    case SQLITE_PROTOCOL:
    case SQLITE_PERM:
    case SQLITE_INTERRUPT:
      return true;
    default:
      return false;
  }
}

const char* remedy(int primary_code) {
  switch (primary_code) {
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
    case SQLITE_PROTOCOL:
      return "another process holds its lock";
    case SQLITE_FULL:
      return "the disk is full, or the file reached its size limit; free some space";
    case SQLITE_READONLY:
    case SQLITE_PERM:
      return "the file or its folder is read-only";
    case SQLITE_CANTOPEN:
      return "it or its folder is missing or may not be written";
    case SQLITE_IOERR:
      return "the operating system reported an error";
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      return "the file is damaged; set it aside or repair it (sqlite3 FILE .recover)";
    default:
      return "unexpected error";
  }
}

SinkError sink_error(const std::string& what, const std::string& path, const DatabaseError& error) {
  return SinkError(what + " " + path + " failed: " + remedy(error.primary()) + ". " + error.what(),
                   is_transient(error.primary()));
}

/// Marks that a call is under way; a process forked meanwhile inherits a connection in an unknown state.
class Busy {
 public:
  explicit Busy(std::atomic<bool>& flag) : flag_(flag) { flag_.store(true, std::memory_order_relaxed); }
  ~Busy() { flag_.store(false, std::memory_order_relaxed); }
  Busy(const Busy&) = delete;
  Busy& operator=(const Busy&) = delete;

 private:
  std::atomic<bool>& flag_;
};

}  // namespace

SqliteSink::SqliteSink(const std::string& path)
    : path_(std::filesystem::absolute(path).lexically_normal().string()) {}

SqliteSink::~SqliteSink() = default;

std::string SqliteSink::target() const { return "sqlite://" + path_; }

SqliteSink::Connection& SqliteSink::connection() {
  if (unusable_after_fork_) {
    throw SinkError("this process was forked while " + path_ +
                        " was being written; its records stay in its journal until they are recovered",
                    true);
  }
  if (connection_ && connection_->database.file_has_moved()) connection_.reset();
  if (!connection_) connection_ = std::make_unique<Connection>(path_);
  return *connection_;
}

bool SqliteSink::is_encrypted() {
  const Busy busy(busy_);
  try {
    if (sqlite::inspect_file(path_) == sqlite::FileState::absent) return false;
    return sqlite::stored_search_key(connection().database).has_value();
  } catch (const DatabaseError& error) {
    connection_.reset();
    throw sink_error("Opening", path_, error);
  }
}

vault::VaultPtr SqliteSink::open_vault(const vault::Kek& kek) {
  const Busy busy(busy_);
  try {
    Database& database = connection().database;
    Transaction transaction(database);
    std::optional<std::string> stored = sqlite::stored_search_key(database);
    if (!stored) {
      sqlite::store_search_key(database, vault::Vault(kek).wrapped_search_key());
      stored = sqlite::stored_search_key(database);
    }
    transaction.commit();
    return std::make_shared<vault::Vault>(kek, *stored);
  } catch (const DatabaseError& error) {
    connection_.reset();
    throw sink_error("Opening", path_, error);
  } catch (const SealedError& error) {
    throw SealedError(path_ + ": " + error.what());
  }
}

void SqliteSink::open(const SessionInfo& session, const WriterInfo& writer) {
  const Busy busy(busy_);
  try {
    connection().register_writer(session, writer);
  } catch (const DatabaseError& error) {
    connection_.reset();
    throw sink_error("Opening", path_, error);
  }
}

void SqliteSink::write(const Batch& batch) {
  const Busy busy(busy_);
  if (batch.records.empty()) return;
  if (connection_ && connection_->database.file_has_moved()) {
    connection_.reset();
    throw SinkError(path_ + " was moved or deleted while it was being written; it will be made anew", true);
  }
  try {
    Connection& now = connection();
    auto writer = now.writers.find(batch.writer.id);
    if (writer == now.writers.end()) {
      now.register_writer(batch.session, batch.writer);
      writer = now.writers.find(batch.writer.id);
    }
    Transaction transaction(now.database);
    now.insert(writer->second, batch);
    transaction.commit();
    writer->second.may_repeat = false;
  } catch (const DatabaseError& error) {
    // What was cached may belong to the transaction that is gone.
    connection_.reset();
    throw sink_error("Writing to", path_, error);
  } catch (...) {
    connection_.reset();
    throw;
  }
}

std::optional<std::uint64_t> SqliteSink::stored_through(const WriterInfo& writer) {
  const Busy busy(busy_);
  try {
    Connection& now = connection();
    Statement find(now.database, "SELECT writer_key FROM writers WHERE writer_id = ?1");
    find.bind(1, writer.id);
    if (!find.step()) return std::nullopt;
    return now.last_sequence(find.integer(0));
  } catch (const DatabaseError& error) {
    connection_.reset();
    throw sink_error("Reading", path_, error);
  }
}

void SqliteSink::close() {
  const Busy busy(busy_);
  if (!connection_) return;
  const std::unique_ptr<Connection> last = std::move(connection_);
  try {
    last->close_writers();
  } catch (const DatabaseError& error) {
    throw sink_error("Closing", path_, error);
  }
}

void SqliteSink::abandon_after_fork() {
  if (!connection_) return;
  if (busy_.load(std::memory_order_relaxed)) {
    // Another thread of the parent was inside SQLite: its memory here is in an unknown state, and so are the
    // locks that SQLite believes this process to have on the file.
    (void)connection_.release();
    unusable_after_fork_ = true;
    busy_.store(false, std::memory_order_relaxed);
    return;
  }
  // POSIX locks are the parent's alone, so letting go here drops none of them. Leaking instead would leave
  // SQLite's table of locked files claiming a lock that this process does not have: a connection opened here
  // would not take its own, and the parent's close would delete the log under it.
  sqlite3_db_config(connection_->database.handle(), SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, nullptr);
  connection_.reset();
}

}  // namespace rubriscope
