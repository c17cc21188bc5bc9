#include "rubriscope/sinks/sqlite/connection.h"

#include <algorithm>
#include <chrono>
#include <thread>

#include "rubriscope/core/errors.h"
#include "rubriscope/core/json.h"
#include "rubriscope/sinks/sqlite/columns.h"
#include "rubriscope/sinks/sqlite/format.h"
#include "rubriscope/sinks/sqlite/vault_store.h"

namespace rubriscope {

using rows::all_scored;
using rows::Extent;
using rows::first_key;
using rows::kMaxKnownEpisodes;
using rows::kRecordsPerExtent;
using rows::write_statuses;
using sqlite::Database;
using sqlite::DatabaseError;
using sqlite::Statement;
using sqlite::Transaction;

namespace {

constexpr int kBusyTimeoutMs = 1000;

}  // namespace

SqliteSink::Connection::Connection(const std::string& path) {
  sqlite::inspect_file(path);
  database = Database(path, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, kBusyTimeoutMs);
  try {
    database.execute("PRAGMA page_size = 32768");
    if (sqlite::inspect_database(database, path) == sqlite::FileState::absent) {
      // In rollback mode, so that the main file says whose it is from its first byte on, whatever happens
      // next.
      Transaction transaction(database);
      if (sqlite::inspect_database(database, path) == sqlite::FileState::absent) {
        database.execute(sqlite::kCreateSql);
      }
      transaction.commit();
    }
  } catch (const FormatError&) {
    // Nothing was written; keep SQLite from tidying the stranger's write-ahead log when we let go of it.
    sqlite3_db_config(database.handle(), SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, nullptr);
    throw;
  }
  // The change to WAL needs the file for itself for a moment and does not wait for it by itself.
  for (int attempt = 0; database.text("PRAGMA journal_mode") != "wal"; ++attempt) {
    try {
      database.execute("PRAGMA journal_mode = WAL");
    } catch (const DatabaseError& error) {
      if (error.primary() != SQLITE_BUSY || attempt >= kBusyTimeoutMs / 10) throw;
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    if (attempt > kBusyTimeoutMs / 10) {
      throw DatabaseError(SQLITE_CANTOPEN, "write-ahead logging is not possible on this file system");
    }
  }
  database.execute(
      "PRAGMA synchronous = FULL; PRAGMA cache_size = -16384; PRAGMA wal_autocheckpoint = 500;"
      "PRAGMA secure_delete = OFF; PRAGMA temp_store = MEMORY");
  insert_step =
      Statement(database,
                "INSERT INTO steps(step_key, session_id, episode_id, step_index, time_ns, reward, action, "
                "observation, metadata, group_id, sample_index, schema_key, scores, statuses, record) "
                "VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)",
                true);
  insert_scalar = Statement(database,
                            "INSERT INTO scalars(scalar_key, session_id, step_index, time_ns, schema_key, "
                            "\"values\", record) VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                            true);
  insert_event = Statement(database,
                           "INSERT INTO events VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, "
                           "?13, ?14, ?15, ?16)",
                           true);
  insert_episode = Statement(
      database, "INSERT INTO episodes VALUES(?1, ?2, ?3) ON CONFLICT(session_id, episode_id) DO NOTHING",
      true);
  put_extent = Statement(
      database, "INSERT OR REPLACE INTO extents VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)", true);
  put_tile = Statement(database, "INSERT OR REPLACE INTO ledger_tiles VALUES(?1, ?2)", true);
  put_entry = Statement(database, "INSERT INTO ledger_entries VALUES(?1, ?2)", true);
  // Without a checkpoint the last one stays.
  put_log =
      Statement(database,
                "INSERT INTO ledgers VALUES(?1, ?2, ?3) ON CONFLICT(writer_key) DO UPDATE SET size = ?2, "
                "checkpoint = coalesce(?3, checkpoint)",
                true);
  find_key = Statement(database,
                       "SELECT EXISTS(SELECT 1 FROM steps WHERE step_key = ?1) OR "
                       "EXISTS(SELECT 1 FROM scalars WHERE scalar_key = ?1) OR "
                       "EXISTS(SELECT 1 FROM events WHERE event_key = ?1)",
                       true);
}

void SqliteSink::Connection::register_writer(const SessionInfo& session, const WriterInfo& info) {
  Writer writer(session, info);
  Transaction transaction(database);
  const std::string created_at = sqlite::created_at_column(session.created_ns);
  std::string name;
  append_valid_utf8(name, session.name);
  std::string metadata_text;
  append_json_value(metadata_text, session.metadata_json.empty() ? "{}" : session.metadata_json);
  Statement(database,
            "INSERT INTO sessions(uuid, name, created_at, created_ns, metadata) VALUES(?1, ?2, ?3, ?4, ?5) "
            "ON CONFLICT(uuid) DO NOTHING")
      .bind(1, session.id)
      .bind(2, name)
      .bind(3, created_at)
      .bind(4, session.created_ns)
      .bind(5, metadata_text)
      .run();
  Statement find_session(database, "SELECT session_id FROM sessions WHERE uuid = ?1");
  find_session.bind(1, session.id).step();
  writer.session_id = find_session.integer(0);
  find_session.reset();
  Statement(database,
            "INSERT INTO writers(session_id, writer_id, rank, world_size, host, pid, started_ns) "
            "VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT(writer_id) DO NOTHING")
      .bind(1, writer.session_id)
      .bind(2, info.id)
      .bind(3, std::int64_t{info.rank})
      .bind(4, std::int64_t{info.world_size})
      .bind(5, info.host)
      .bind(6, info.pid)
      .bind(7, info.started_ns)
      .run();
  Statement find_writer(database, "SELECT writer_key FROM writers WHERE writer_id = ?1");
  find_writer.bind(1, info.id).step();
  writer.writer_key = find_writer.integer(0);
  find_writer.reset();
  if (!info.wrapped_key.empty()) {
    // A key that was shredded stays away: its writer is registered already.
    Statement(database,
              "INSERT INTO vault_keys SELECT ?1, ?2 WHERE NOT EXISTS(SELECT 1 FROM writers WHERE "
              "writer_key = ?1 AND closed_ns IS NOT NULL) ON CONFLICT(writer_key) DO NOTHING")
        .bind(1, writer.writer_key)
        .bind_blob(2, std::as_bytes(std::span(info.wrapped_key)))
        .run();
  }
  Statement(database, "UPDATE sessions SET closed_ns = NULL WHERE session_id = ?1 AND closed_ns IS NOT NULL")
      .bind(1, writer.session_id)
      .run();
  Statement(database, "UPDATE writers SET closed_ns = NULL WHERE writer_key = ?1 AND closed_ns IS NOT NULL")
      .bind(1, writer.writer_key)
      .run();
  const std::optional<std::uint64_t> last = last_sequence(writer.writer_key);
  writer.may_repeat = last.has_value();
  writer.log = ledger::WriterLog::open(session, info, load_log(writer.writer_key), last);
  transaction.commit();
  writers.insert_or_assign(info.id, std::move(writer));
}

std::optional<std::uint64_t> SqliteSink::Connection::last_sequence(std::int64_t writer_key) {
  std::optional<std::uint64_t> last;
  for (const char* sql :
       {"SELECT step_key FROM steps WHERE step_key BETWEEN ?1 AND ?2 ORDER BY step_key DESC LIMIT 1",
        "SELECT scalar_key FROM scalars WHERE scalar_key BETWEEN ?1 AND ?2 ORDER BY scalar_key DESC LIMIT 1",
        "SELECT event_key FROM events WHERE event_key BETWEEN ?1 AND ?2 ORDER BY event_key DESC LIMIT 1"}) {
    Statement statement(database, sql);
    statement.bind(1, first_key(writer_key)).bind(2, first_key(writer_key + 1) - 1);
    if (!statement.step()) continue;
    const std::uint64_t sequence = static_cast<std::uint64_t>(statement.integer(0)) & sqlite::kSequenceMask;
    last = std::max(last.value_or(0), sequence);
  }
  return last;
}

std::int64_t SqliteSink::Connection::schema_key(Writer& writer, const RecordView& record) {
  const auto known = writer.schema_keys.find(record.header->schema);
  if (known != writer.schema_keys.end()) return known->second;

  const Schema& schema = *record.schema;
  const std::string definition = schema.definition_json();
  Statement find(database, "SELECT schema_key FROM schemas WHERE session_id = ?1 AND definition = ?2");
  find.bind(1, writer.session_id).bind(2, definition);
  std::int64_t key = 0;
  if (find.step()) {
    key = find.integer(0);
  } else {
    Statement(database, "INSERT INTO schemas(session_id, kind, definition) VALUES(?1, ?2, ?3)")
        .bind(1, writer.session_id)
        .bind(2, schema.kind_name())
        .bind(3, definition)
        .run();
    key = sqlite3_last_insert_rowid(database.handle());
    Statement insert(database, "INSERT INTO rubrics VALUES(?1, ?2, ?3, ?4, ?5) ON CONFLICT DO NOTHING");
    for (std::size_t slot = 0; slot < schema.slots.size(); ++slot) {
      const std::string pointer = "$[" + std::to_string(slot) + "]";
      std::string class_name;
      append_valid_utf8(class_name, schema.slots[slot].class_name);
      for (const std::string& path : schema.slots[slot].paths) {
        std::string valid_path;
        append_valid_utf8(valid_path, path);
        insert.bind(1, key)
            .bind(2, valid_path)
            .bind(3, static_cast<std::int64_t>(slot))
            .bind(4, pointer)
            .bind(5, class_name)
            .run();
      }
    }
  }
  writer.schema_keys.emplace(record.header->schema, key);
  return key;
}

std::optional<ledger::LogTail> SqliteSink::Connection::load_log(std::int64_t writer_key) {
  Statement find(database, "SELECT size FROM ledgers WHERE writer_key = ?1");
  if (!find.bind(1, writer_key).step()) return std::nullopt;
  const auto size = static_cast<std::uint64_t>(find.integer(0));
  std::vector<ledger::Tile> edge = ledger::edge_of(size);
  for (ledger::Tile& tile : edge) {
    if (ledger::tile_width(size, tile.level, tile.index) == 0) continue;
    Statement select(database, "SELECT hashes FROM ledger_tiles WHERE tile_key = ?1");
    select.bind(1, rows::tile_key(writer_key, tile.level, tile.index));
    if (select.step()) tile.hashes = ledger::hashes_of(select.blob(0));
  }
  return ledger::LogTail(size, std::move(edge));
}

void SqliteSink::Connection::store_log(Writer& writer) {
  const ledger::LogChange change = writer.log->take();
  for (const ledger::LogChange::Entry& entry : change.entries) {
    put_entry.bind(1, first_key(writer.writer_key) | static_cast<std::int64_t>(entry.place))
        .bind_blob(2, std::as_bytes(std::span(entry.bytes)))
        .run();
  }
  for (const ledger::Tile& tile : change.tiles) {
    put_tile.bind(1, rows::tile_key(writer.writer_key, tile.level, tile.index))
        .bind_blob(2, std::as_bytes(std::span(tile.hashes)))
        .run();
  }
  put_log.bind(1, writer.writer_key).bind(2, static_cast<std::int64_t>(change.size));
  if (change.checkpoint) {
    put_log.bind(3, *change.checkpoint);
  } else {
    put_log.bind_null(3);
  }
  put_log.run();
}

void SqliteSink::Connection::ensure_episode(Writer& writer, const std::string& name, std::int64_t time_ns) {
  if (writer.episodes.contains(name)) return;
  insert_episode.bind(1, writer.session_id).bind(2, name).bind(3, time_ns).run();
  if (writer.episodes.size() >= kMaxKnownEpisodes) writer.episodes.clear();
  writer.episodes.insert(name);
}

namespace {

/// A column that is mostly NULL: bound again only when it changes.
class OptionalColumn {
 public:
  OptionalColumn(Statement& statement, int index) : statement_(statement), index_(index) {
    statement_.bind_null(index_);
  }

  template <class Value>
  void set(const Value& value) {
    statement_.bind(index_, value);
    null_ = false;
  }
  void set_null() {
    if (!null_) statement_.bind_null(index_);
    null_ = true;
  }

 private:
  Statement& statement_;
  int index_;
  bool null_{true};
};

void set_capture(OptionalColumn& column, const RecordView::Extra& capture, std::string& scratch) {
  const sqlite::CaptureColumn value = sqlite::capture_column(capture, scratch);
  switch (value.type) {
    case sqlite::CaptureColumn::Type::null:
      return column.set_null();
    case sqlite::CaptureColumn::Type::integer:
      return column.set(value.integer);
    case sqlite::CaptureColumn::Type::real:
      return column.set(value.real);
    case sqlite::CaptureColumn::Type::text:
      return column.set(value.text);
  }
}

}  // namespace

void SqliteSink::Connection::insert(Writer& writer, const Batch& batch) {
  Statement& step = insert_step;
  step.bind(2, writer.session_id);
  OptionalColumn episode_column(step, 3);
  OptionalColumn reward_column(step, 6);
  OptionalColumn action_column(step, 7);
  OptionalColumn observation_column(step, 8);
  OptionalColumn metadata_column(step, 9);
  OptionalColumn group_column(step, 10);
  OptionalColumn sample_column(step, 11);
  OptionalColumn statuses_column(step, 14);
  bool has_episode = false;

  std::int64_t key_of_schema = -1;
  std::uint32_t last_schema = 0;
  bool first_of_batch = true;
  bool any = false;
  // A batch whose commit was cut short may be offered again. Elsewhere a repeated sequence is a fault, which
  // the primary key refuses.
  const bool may_repeat = writer.may_repeat || batch.recovered;
  const std::optional<std::uint64_t> stored =
      may_repeat ? last_sequence(writer.writer_key) : std::optional<std::uint64_t>();

  for (const RecordView& record : batch.records) {
    const RecordHeader& header = *record.header;
    if (header.sequence > sqlite::kSequenceMask) {
      throw SinkError(
          "sequence " + std::to_string(header.sequence) + " does not fit the 40 bits of a step_key", false);
    }
    const std::int64_t key = first_key(writer.writer_key) | static_cast<std::int64_t>(header.sequence);
    if (stored && header.sequence <= *stored && is_stored(key)) continue;
    if (key_of_schema < 0 || header.schema != last_schema) {
      key_of_schema = schema_key(writer, record);
      last_schema = header.schema;
      step.bind(12, key_of_schema);
    }
    Extent& extent = writer.extent;
    if (extent.records() == kRecordsPerExtent) {
      store_extent(writer);
      extent = {};
    }
    extent.add(key, header.time_ns);
    any = true;
    record_bytes.clear();
    writer.encoder.encode(record, record_bytes);
    if (writer.log) writer.log->add(record, ledger::bytes_of(record_bytes));
    const std::string_view scores = sqlite::scores_column(record, scores_text);

    if (header.kind == RecordKind::scalars) {
      ++extent.scalars;
      insert_scalar.bind(1, key)
          .bind(2, writer.session_id)
          .bind(3, header.step)
          .bind(4, header.time_ns)
          .bind(5, key_of_schema)
          .bind(6, scores)
          .bind_blob(7, record_bytes)
          .run();
      continue;
    }

    if (is_event(header.kind)) {
      ++extent.events;
      add_event(writer, record, key, key_of_schema, scores);
      continue;
    }

    const rows::Columns columns = rows::columns_of(record);
    bool episode_changed = first_of_batch;
    first_of_batch = false;
    if (columns.episode.data() == nullptr) {
      episode_changed = episode_changed || has_episode;
      episode_column.set_null();
      has_episode = false;
    } else if (!has_episode || columns.episode != episode) {
      episode.clear();
      append_valid_utf8(episode, columns.episode);
      ensure_episode(writer, episode, header.time_ns);
      episode_column.set(std::string_view(episode));
      has_episode = true;
      episode_changed = true;
    }
    extent.add_step(header.step, episode_changed, has_episode, episode);
    if (sqlite::has_reward(record)) {
      reward_column.set(record.scores()[0]);
    } else {
      reward_column.set_null();
    }
    set_capture(action_column, columns.action, action);
    set_capture(observation_column, columns.observation, observation);
    if (columns.metadata_json.data() == nullptr) {
      metadata_column.set_null();
    } else {
      metadata.clear();
      append_json_value(metadata, columns.metadata_json);
      metadata_column.set(std::string_view(metadata));
    }
    if (header.group == kNoGroup) {
      group_column.set_null();
    } else {
      group_column.set(header.group);
    }
    if (header.sample == kNoSample) {
      sample_column.set_null();
    } else {
      sample_column.set(std::int64_t{header.sample});
    }
    if (rows::all_scored(record)) {
      statuses_column.set_null();
    } else {
      statuses_column.set(rows::write_statuses(record, statuses_text));
    }
    step.bind(1, key)
        .bind(4, header.step)
        .bind(5, header.time_ns)
        .bind(13, scores)
        .bind_blob(15, record_bytes)
        .run();
  }
  if (!any) return;
  store_extent(writer);
  if (writer.log) store_log(writer);
}

void SqliteSink::Connection::add_event(Writer& writer, const RecordView& record, std::int64_t key,
                                       std::int64_t key_of_schema, std::string_view values) {
  const RecordHeader& header = *record.header;
  const sqlite::EventColumns columns(record);
  insert_event.bind(1, key)
      .bind(2, writer.session_id)
      .bind(3, kind_name(header.kind))
      .bind(4, columns.name)
      .bind(6, header.step)
      .bind(7, header.time_ns)
      .bind(8, columns.duration_ns)
      .bind(9, columns.outcome)
      .bind(12, key_of_schema)
      .bind(13, values)
      .bind(14, columns.fields)
      .bind_blob(16, record_bytes);
  for (const auto& [column, text] : {std::pair(5, &columns.episode),
                                     {10, &columns.trace_id},
                                     {11, &columns.parent_id},
                                     {15, &columns.metadata}}) {
    if (*text) {
      insert_event.bind(column, **text);
    } else {
      insert_event.bind_null(column);
    }
  }
  insert_event.run();
}

void SqliteSink::Connection::store_extent(Writer& writer) {
  const Extent& extent = writer.extent;
  put_extent.bind(1, extent.first_key)
      .bind(2, extent.last_key)
      .bind(3, writer.session_id)
      .bind(4, extent.steps)
      .bind(5, extent.scalars)
      .bind(6, extent.events)
      .bind(7, extent.first_ns)
      .bind(8, extent.last_ns);
  if (extent.steps != 0 && extent.one_episode) {
    put_extent.bind(9, extent.episode);
  } else {
    put_extent.bind_null(9);
  }
  if (extent.steps != 0) {
    put_extent.bind(10, extent.first_step).bind(11, extent.last_step);
  } else {
    put_extent.bind_null(10).bind_null(11);
  }
  put_extent.run();
}

bool SqliteSink::Connection::is_stored(std::int64_t key) {
  find_key.bind(1, key).step();
  const bool stored = find_key.integer(0) != 0;
  find_key.reset();
  return stored;
}

void SqliteSink::Connection::close_writers() {
  const std::int64_t now_ns = std::chrono::duration_cast<std::chrono::nanoseconds>(
                                  std::chrono::system_clock::now().time_since_epoch())
                                  .count();
  Transaction transaction(database);
  for (const auto& [id, writer] : writers) {
    Statement(database, "UPDATE writers SET closed_ns = ?2 WHERE writer_key = ?1")
        .bind(1, writer.writer_key)
        .bind(2, now_ns)
        .run();
    Statement(database,
              "UPDATE sessions SET closed_ns = ?2 WHERE session_id = ?1 AND NOT EXISTS("
              "SELECT 1 FROM writers WHERE writers.session_id = ?1 AND closed_ns IS NULL)")
        .bind(1, writer.session_id)
        .bind(2, now_ns)
        .run();
  }
  transaction.commit();
}

}  // namespace rubriscope
