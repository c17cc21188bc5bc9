#include "rubriscope/film/sqlite_ledger_source.h"

#include <utility>

#include "rubriscope/core/json.h"
#include "rubriscope/ledger/log.h"
#include "rubriscope/sinks/rows.h"
#include "rubriscope/sinks/sqlite/columns.h"
#include "rubriscope/sinks/sqlite/reading.h"

namespace rubriscope {

using sqlite::Database;
using sqlite::DatabaseError;
using sqlite::ReadTransaction;
using sqlite::Statement;

namespace {

/// A table's rows, and where in them what every row has is.
struct Table {
  std::string_view select;
  int bytes;
  int schema_key;
};

Table described(LedgerTable table) {
  switch (table) {
    case LedgerTable::steps:
      return {
          "SELECT step_key, session_id, episode_id, step_index, time_ns, reward, action, observation, "
          "metadata, group_id, sample_index, schema_key, scores, statuses, record FROM steps "
          "WHERE step_key BETWEEN ?1 AND ?2 ORDER BY step_key",
          14, 11};
    case LedgerTable::scalars:
      return {
          "SELECT scalar_key, session_id, step_index, time_ns, schema_key, \"values\", record FROM scalars "
          "WHERE scalar_key BETWEEN ?1 AND ?2 ORDER BY scalar_key",
          6, 4};
    case LedgerTable::events:
      return {
          "SELECT event_key, session_id, kind, name, episode_id, step_index, time_ns, duration_ns, outcome, "
          "trace_id, parent_id, schema_key, \"values\", fields, metadata, record FROM events "
          "WHERE event_key BETWEEN ?1 AND ?2 ORDER BY event_key",
          15, 11};
    case LedgerTable::entries:
      return {
          "SELECT entry_key, entry FROM ledger_entries WHERE entry_key BETWEEN ?1 AND ?2 ORDER BY entry_key",
          1, -1};
    case LedgerTable::tiles:
      break;
  }
  return {"SELECT tile_key, hashes FROM ledger_tiles WHERE tile_key BETWEEN ?1 AND ?2 ORDER BY tile_key", 1,
          -1};
}

class SqliteRows final : public LedgerRows {
 public:
  SqliteRows(Database& database, LedgerTable table, std::int64_t first, std::int64_t last)
      : table_(table), places_(described(table)), row_(database, places_.select) {
    row_.bind(1, first).bind(2, last);
    SqliteRows::advance();
  }

  void advance() override {
    has_row_ = row_.step();
    if (has_row_) key_ = row_.integer(0);
  }
  std::span<const std::byte> bytes() override { return row_.blob(places_.bytes); }
  std::int64_t schema_key() override { return row_.integer(places_.schema_key); }

  void check(const RecordView& record, std::int64_t session) override {
    integer(1, "session_id", session);
    switch (table_) {
      case LedgerTable::steps:
        return check_step(record);
      case LedgerTable::scalars:
        return check_scalars(record);
      default:
        return check_event(record);
    }
  }

 private:
  void check_step(const RecordView& record);
  void check_scalars(const RecordView& record);
  void check_event(const RecordView& record);

  [[noreturn]] void differs(const char* column, const std::string& found, const std::string& expected) {
    throw LedgerProblem(record_name(key()) + ": its column " + column + " is " + found +
                        ", its signed bytes say " + expected);
  }
  std::string shown(int column) {
    return row_.is_null(column) ? "NULL" : "'" + std::string(row_.text(column).substr(0, 60)) + "'";
  }
  void null(int column, const char* name) {
    if (!row_.is_null(column)) differs(name, shown(column), "NULL");
  }
  void integer(int column, const char* name, std::int64_t expected) {
    if (row_.type(column) != SQLITE_INTEGER || row_.integer(column) != expected) {
      differs(name, shown(column), std::to_string(expected));
    }
  }
  void optional(int column, const char* name, std::int64_t expected, bool is_null) {
    if (is_null) {
      null(column, name);
    } else {
      integer(column, name, expected);
    }
  }
  void optional(int column, const char* name, const std::optional<std::string>& expected) {
    text(column, name, expected ? std::string_view(*expected) : std::string_view());
  }
  void real(int column, const char* name, double expected) {
    if (row_.type(column) != SQLITE_FLOAT || row_.real(column) != expected) {
      differs(name, shown(column), std::to_string(expected));
    }
  }
  void text(int column, const char* name, std::string_view expected) {
    if (expected.data() == nullptr) return null(column, name);
    if (row_.type(column) != SQLITE_TEXT || row_.text(column) != expected) {
      differs(name, shown(column), "'" + std::string(expected.substr(0, 60)) + "'");
    }
  }
  void capture(int column, const char* name, const RecordView::Extra& extra) {
    const sqlite::CaptureColumn expected = sqlite::capture_column(extra, scratch_);
    switch (expected.type) {
      case sqlite::CaptureColumn::Type::null:
        return null(column, name);
      case sqlite::CaptureColumn::Type::integer:
        return integer(column, name, expected.integer);
      case sqlite::CaptureColumn::Type::real:
        return real(column, name, expected.real);
      case sqlite::CaptureColumn::Type::text:
        return text(column, name, expected.text);
    }
  }

  const LedgerTable table_;
  const Table places_;
  Statement row_;
  std::string scratch_;
  std::vector<char> scores_;
};

void SqliteRows::check_step(const RecordView& record) {
  const RecordHeader& header = *record.header;
  const rows::Columns extras = rows::columns_of(record);
  text(2, "episode_id", extras.episode);
  integer(3, "step_index", header.step);
  integer(4, "time_ns", header.time_ns);
  if (sqlite::has_reward(record)) {
    real(5, "reward", record.scores()[0]);
  } else {
    null(5, "reward");
  }
  capture(6, "action", extras.action);
  capture(7, "observation", extras.observation);
  if (extras.metadata_json.data() == nullptr) {
    null(8, "metadata");
  } else {
    scratch_.clear();
    append_json_value(scratch_, extras.metadata_json);
    text(8, "metadata", scratch_);
  }
  optional(9, "group_id", header.group, header.group == kNoGroup);
  optional(10, "sample_index", header.sample, header.sample == kNoSample);
  text(12, "scores", sqlite::scores_column(record, scores_));
  if (rows::all_scored(record)) {
    null(13, "statuses");
  } else {
    text(13, "statuses", rows::write_statuses(record, scratch_));
  }
}

void SqliteRows::check_scalars(const RecordView& record) {
  integer(2, "step_index", record.header->step);
  integer(3, "time_ns", record.header->time_ns);
  text(5, "values", sqlite::scores_column(record, scores_));
}

void SqliteRows::check_event(const RecordView& record) {
  const RecordHeader& header = *record.header;
  const sqlite::EventColumns columns(record);
  text(2, "kind", kind_name(header.kind));
  text(3, "name", columns.name);
  optional(4, "episode_id", columns.episode);
  integer(5, "step_index", header.step);
  integer(6, "time_ns", header.time_ns);
  integer(7, "duration_ns", columns.duration_ns);
  text(8, "outcome", columns.outcome);
  optional(9, "trace_id", columns.trace_id);
  optional(10, "parent_id", columns.parent_id);
  text(12, "values", sqlite::scores_column(record, scores_));
  text(13, "fields", columns.fields);
  optional(14, "metadata", columns.metadata);
}

class SqliteLedgerSource final : public LedgerSource {
 public:
  explicit SqliteLedgerSource(const std::string& path) : path_(path) {
    try {
      database_ = sqlite::open_read_only(path_);
    } catch (const DatabaseError& error) {
      sqlite::rethrow(error, path_);
    }
  }

  void reading(const std::function<void()>& body) override {
    try {
      const ReadTransaction transaction(database_);
      body();
    } catch (const DatabaseError& error) {
      sqlite::rethrow(error, path_);
    }
  }

  std::vector<LedgerLog> logs(std::int64_t session) override {
    return logs_where("w.session_id = ?1 AND l.size IS NOT NULL ORDER BY w.writer_key", session);
  }

  std::vector<LedgerLog> without_log(std::int64_t session) override {
    return logs_where(std::string("w.session_id = ?1 AND ") + kLacksALog + " ORDER BY w.writer_key", session);
  }

  std::optional<LedgerLog> log(std::int64_t writer_key) override {
    std::vector<LedgerLog> found = logs_where("w.writer_key = ?1 AND l.size IS NOT NULL", writer_key);
    return found.empty() ? std::nullopt : std::optional(std::move(found.front()));
  }

  std::unique_ptr<LedgerRows> rows(LedgerTable table, std::int64_t first, std::int64_t last) override {
    return std::make_unique<SqliteRows>(database_, table, first, last);
  }

  LedgerWriter writer(std::int64_t writer_key) override {
    Statement find(database_,
                   "SELECT s.session_id, s.uuid, s.name, s.created_ns, s.created_at, s.metadata, "
                   "w.writer_key = (SELECT min(writer_key) FROM writers WHERE session_id = s.session_id), "
                   "w.rank, w.world_size, w.host, w.pid, w.started_ns "
                   "FROM writers w JOIN sessions s USING(session_id) WHERE w.writer_key = ?1");
    if (!find.bind(1, writer_key).step()) throw LedgerProblem("its writer's row is missing");
    LedgerWriter writer;
    writer.session = find.integer(0);
    writer.session_id = find.text(1);
    writer.name = find.text(2);
    writer.created_ns = find.integer(3);
    writer.created_at_holds = find.text(4) == sqlite::created_at_column(writer.created_ns);
    writer.metadata = find.text(5);
    writer.is_first = find.integer(6) != 0;
    writer.rank = find.integer(7);
    writer.world_size = find.integer(8);
    writer.host = find.text(9);
    writer.pid = find.integer(10);
    writer.started_ns = find.integer(11);
    return writer;
  }

  std::optional<LedgerSchema> schema(std::int64_t schema_key) override {
    Statement find(database_, "SELECT session_id, kind, definition FROM schemas WHERE schema_key = ?1");
    if (!find.bind(1, schema_key).step()) return std::nullopt;
    LedgerSchema schema{find.integer(0), std::string(find.text(1)), std::string(find.text(2)), {}};
    Statement rubrics(database_,
                      "SELECT rubric_path, slot, jp, class_name FROM rubrics WHERE schema_key = ?1");
    rubrics.bind(1, schema_key);
    while (rubrics.step()) {
      schema.rubrics.push_back({std::string(rubrics.text(0)), rubrics.integer(1),
                                std::string(rubrics.text(2)), std::string(rubrics.text(3))});
    }
    return schema;
  }

  std::string stored(std::string_view text) const override {
    std::string valid;
    append_valid_utf8(valid, text);
    return valid;
  }

 private:
  std::vector<LedgerLog> logs_where(const std::string& condition, std::int64_t key) {
    std::vector<LedgerLog> found;
    Statement select(database_,
                     "SELECT w.writer_key, w.writer_id, w.rank, s.uuid, l.size, l.checkpoint FROM writers w "
                     "JOIN sessions s USING(session_id) LEFT JOIN ledgers l USING(writer_key) WHERE " +
                         condition);
    select.bind(1, key);
    while (select.step()) {
      LedgerLog log;
      log.writer_key = select.integer(0);
      log.writer_id = select.text(1);
      log.rank = static_cast<std::int32_t>(select.integer(2));
      log.origin = ledger::origin_of(select.text(3), log.writer_id);
      log.size = static_cast<std::uint64_t>(select.integer(4));
      if (!select.is_null(5)) log.checkpoint = select.text(5);
      found.push_back(std::move(log));
    }
    return found;
  }

  const std::string path_;
  Database database_;
};

}  // namespace

std::unique_ptr<LedgerSource> open_sqlite_ledgers(const std::string& path) {
  return std::make_unique<SqliteLedgerSource>(path);
}

}  // namespace rubriscope
