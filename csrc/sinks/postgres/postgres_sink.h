// Stores records in a PostgreSQL database, laid out as docs/formats.md says. Many processes on many machines
// may write to one database. The connection is given: in Python's binding it is psycopg's.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "rubriscope/core/errors.h"
#include "rubriscope/ledger/writer_log.h"
#include "rubriscope/recorder/sink.h"
#include "rubriscope/sinks/rows.h"

namespace rubriscope {

namespace postgres {

struct Episode {
  std::string name;
  std::int64_t started_ns;
};

/// The server's time for a statement ran out: fewer records at a time may fit into it.
struct StatementTimeout : SinkError {
  explicit StatementTimeout(const std::string& message) : SinkError(message, true) {}
};

/// What one transaction stores. The streams are encoded as they are asked for, so that the server works on
/// what it has while the next piece is made.
class Portion {
 public:
  virtual ~Portion() = default;

  /// The next bytes of the stream into `steps`, or none at its end. Valid until the next call.
  virtual std::string_view steps() = 0;
  /// Likewise into `scalars`, once steps() has ended.
  virtual std::string_view scalars() = 0;
  /// Likewise into `events`.
  virtual std::string_view events() = 0;
  /// Rows of `extents`, to be put in place of those with the same first_key, once steps() has ended.
  virtual const std::vector<rows::Extent>& extents() const = 0;
  /// Rows of `episodes`, by name, those that are not there yet; once steps() has ended.
  virtual const std::vector<Episode>& episodes() const = 0;
  /// What goes into the writer's log with them, null where it has none; once steps() has ended.
  virtual const ledger::LogChange* log() const = 0;
};

/// A connection to a database whose tables exist. Everything may throw SinkError.
class Link {
 public:
  virtual ~Link() = default;

  struct Registration {
    std::int64_t session_id;
    std::int64_t writer_key;
    std::optional<std::uint64_t> stored;  ///< this writer's highest sequence
    std::optional<ledger::LogTail> log;   ///< its log, in the same state of the database
  };

  virtual Registration register_writer(const SessionInfo& session, const WriterInfo& writer) = 0;
  virtual std::optional<std::uint64_t> stored_through(const std::string& writer_id) = 0;
  /// The sequences from `first` to `last` that are stored.
  virtual std::vector<std::uint64_t> stored_between(std::int64_t writer_key, std::uint64_t first,
                                                    std::uint64_t last) = 0;
  /// The key of a schema with this content, which may be new.
  virtual std::int64_t schema_key(std::int64_t session_id, const Schema& schema) = 0;
  /// One transaction; durable when it returns.
  virtual void store(std::int64_t session_id, std::int64_t writer_key, Portion& portion) = 0;
  virtual void close_writers(const std::vector<std::int64_t>& writer_keys) = 0;
  /// In a forked child, instead of the destructor: lets go without a word to the server.
  virtual void abandon() noexcept = 0;
};

}  // namespace postgres

class PostgresSink : public Sink {
 public:
  /// Opens a connection and makes the tables where there are none. Throws FormatError, SinkError.
  using Connect = std::function<std::unique_ptr<postgres::Link>()>;

  /// `target` has no password in it. Nothing is opened before open().
  PostgresSink(std::string target, Connect connect);
  ~PostgresSink() override;

  std::string target() const override { return target_; }
  void open(const SessionInfo& session, const WriterInfo& writer) override;

  /// One transaction, or several where the server's statement time-out wants them smaller.
  void write(const Batch& batch) override;

  std::optional<std::uint64_t> stored_through(const WriterInfo& writer) override;
  bool stores_identity() const override { return true; }
  bool takes_gil() const override { return true; }
  void close() override;
  void abandon_after_fork() override;

 private:
  struct Connection;

  Connection& connection();

  const std::string target_;
  const Connect connect_;
  std::unique_ptr<Connection> connection_;
  std::size_t most_records_;  // in a transaction
  int fitting_{0};            // transactions of that size since the last time-out
};

}  // namespace rubriscope
