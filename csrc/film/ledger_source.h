// Where ledgers are stored: what their verification and their proofs ask of a database.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "rubriscope/core/errors.h"
#include "rubriscope/core/record.h"

namespace rubriscope {

/// SQL, of a row `w` of writers: it has no log and should.
inline constexpr const char* kLacksALog = R"sql(
NOT EXISTS(SELECT 1 FROM ledgers l WHERE l.writer_key = w.writer_key) AND (
  EXISTS(SELECT 1 FROM ledger_tiles
         WHERE tile_key BETWEEN w.writer_key << 40 AND ((w.writer_key + 1) << 40) - 1)
  OR EXISTS(SELECT 1 FROM ledger_entries
            WHERE entry_key BETWEEN w.writer_key << 40 AND ((w.writer_key + 1) << 40) - 1)
  OR (EXISTS(SELECT 1 FROM ledgers JOIN writers o USING(writer_key) WHERE o.session_id = w.session_id)
      AND (EXISTS(SELECT 1 FROM steps
                  WHERE step_key BETWEEN w.writer_key << 40 AND ((w.writer_key + 1) << 40) - 1)
           OR EXISTS(SELECT 1 FROM scalars
                     WHERE scalar_key BETWEEN w.writer_key << 40 AND ((w.writer_key + 1) << 40) - 1)
           OR EXISTS(SELECT 1 FROM events
                     WHERE event_key BETWEEN w.writer_key << 40 AND ((w.writer_key + 1) << 40) - 1))))
)sql";

/// One writer's log.
struct LedgerLog {
  std::int64_t writer_key{};
  std::string writer_id;
  std::int32_t rank{};
  std::string origin;
  std::uint64_t size{};
  std::string checkpoint;  ///< a signed note, "" where none was signed
};

/// Ends a verification: what() is the verdict.
struct LedgerProblem : Error {
  using Error::Error;
};

/// "record 17", of the key of its row.
std::string record_name(std::int64_t key);

enum class LedgerTable { steps, scalars, events, entries, tiles };
inline constexpr std::array kRecordTables = {LedgerTable::steps, LedgerTable::scalars, LedgerTable::events};

/// The table of a record's row.
constexpr LedgerTable table_of(RecordKind kind) {
  return kind == RecordKind::snapshot  ? LedgerTable::steps
         : kind == RecordKind::scalars ? LedgerTable::scalars
                                       : LedgerTable::events;
}

/// Rows of one table in the order of their keys. What they give is borrowed until they advance.
class LedgerRows {
 public:
  virtual ~LedgerRows() = default;

  bool at_end() const { return !has_row_; }
  std::int64_t key() const { return key_; }
  virtual void advance() = 0;
  /// The record, the entry or the hashes of the tile.
  virtual std::span<const std::byte> bytes() = 0;

  // Of a record's row:
  virtual std::int64_t schema_key() = 0;
  /// Throws LedgerProblem where another column does not say what the record does.
  virtual void check(const RecordView& record, std::int64_t session) = 0;

 protected:
  bool has_row_{false};
  std::int64_t key_{};
};

/// The rows of a writer and of its session.
struct LedgerWriter {
  std::int64_t session{};
  std::string session_id;
  std::string name;
  std::int64_t created_ns{};
  bool created_at_holds{};  ///< whether created_at says the same
  std::string metadata;
  bool is_first{};  ///< of its session's writers: its metadata are the session's
  std::int64_t rank{};
  std::int64_t world_size{};
  std::string host;
  std::int64_t pid{};
  std::int64_t started_ns{};
};

/// A schema's row and those of its rubrics.
struct LedgerSchema {
  struct Rubric {
    std::string path;
    std::int64_t slot{};
    std::string pointer;
    std::string class_name;
  };

  std::int64_t session{};
  std::string kind;
  std::string definition;
  std::vector<Rubric> rubrics;
};

class LedgerSource {
 public:
  virtual ~LedgerSource() = default;

  /// Runs `body`, which sees one state of the database; what is below is called within it only.
  virtual void reading(const std::function<void()>& body) = 0;

  /// The logs of a session, in the order its writers were registered.
  virtual std::vector<LedgerLog> logs(std::int64_t session) = 0;
  /// The writers of a session that have no log and should: they have records, and the session's others have
  /// logs; or parts of a log of theirs are there. Size 0.
  virtual std::vector<LedgerLog> without_log(std::int64_t session) = 0;
  /// A writer's log.
  virtual std::optional<LedgerLog> log(std::int64_t writer_key) = 0;
  /// Keys from `first` to `last`, both included.
  virtual std::unique_ptr<LedgerRows> rows(LedgerTable table, std::int64_t first, std::int64_t last) = 0;
  virtual LedgerWriter writer(std::int64_t writer_key) = 0;
  virtual std::optional<LedgerSchema> schema(std::int64_t schema_key) = 0;
  /// A text as this database stores it.
  virtual std::string stored(std::string_view text) const = 0;
};

}  // namespace rubriscope
