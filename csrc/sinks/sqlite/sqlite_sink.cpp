#include "rubriscope/sinks/sqlite/sqlite_sink.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <thread>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "rubriscope/core/captured.h"
#include "rubriscope/core/cbor.h"
#include "rubriscope/core/errors.h"
#include "rubriscope/core/json.h"
#include "rubriscope/sinks/sqlite/database.h"
#include "rubriscope/sinks/sqlite/format.h"

namespace rubriscope {

using sqlite::Database;
using sqlite::DatabaseError;
using sqlite::Statement;
using sqlite::Transaction;

namespace {

constexpr int kBusyTimeoutMs = 1000;
constexpr std::size_t kMaxKnownEpisodes = 4096;
constexpr std::int64_t kRecordsPerSpan = 256;

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

std::string iso_8601(std::int64_t time_ns) {
  const std::time_t seconds = time_ns / 1'000'000'000;
  std::tm parts{};
  gmtime_r(&seconds, &parts);
  char text[48];
  const std::size_t length = std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &parts);
  std::snprintf(text + length, sizeof text - length, ".%06dZ",
                static_cast<int>(time_ns % 1'000'000'000 / 1000));
  return text;
}

/// The lowest step_key of a writer.
std::int64_t first_key(std::int64_t writer_key) { return writer_key << sqlite::kSequenceBits; }

/// What a run of neighbouring records of one writer covers. An index over the steps themselves would cost a
/// third of the writing speed; these few rows find a step nearly as fast, and add up to a session's counts.
struct Span {
  std::int64_t first_key{};
  std::int64_t last_key{};
  std::int64_t steps{};
  std::int64_t scalars{};
  std::int64_t first_ns{};
  std::int64_t last_ns{};
  bool one_episode{};
  std::string episode;  // when one_episode
  std::int64_t first_step{};
  std::int64_t last_step{};

  std::int64_t records() const { return steps + scalars; }

  void add(std::int64_t key, std::int64_t time_ns) {
    if (records() == 0) {
      first_key = key;
      first_ns = last_ns = time_ns;
    }
    last_key = key;
    first_ns = std::min(first_ns, time_ns);
    last_ns = std::max(last_ns, time_ns);
  }
  void add_step(std::int64_t step, bool episode_changed, bool has_episode, const std::string& name) {
    if (steps == 0) {
      first_step = last_step = step;
      one_episode = has_episode;
      episode = name;
    } else if (episode_changed && (!has_episode || name != episode)) {
      one_episode = false;
    }
    ++steps;
    first_step = std::min(first_step, step);
    last_step = std::max(last_step, step);
  }
};

}  // namespace

struct SqliteSink::Connection {
  struct Writer {
    Writer(const SessionInfo& session, const WriterInfo& writer) : encoder(session, writer) {}

    CborEncoder encoder;
    std::int64_t session_id{};
    std::int64_t writer_key{};
    bool may_repeat{true};  // a batch of before may have been stored
    std::unordered_map<std::uint32_t, std::int64_t> schema_keys;
    std::unordered_set<std::string> episodes;
    Span span;
  };

  explicit Connection(const std::string& path);

  void register_writer(const SessionInfo& session, const WriterInfo& writer);
  void insert(Writer& writer, const Batch& batch);
  std::int64_t schema_key(Writer& writer, const RecordView& record);
  void ensure_episode(Writer& writer, const std::string& episode, std::int64_t time_ns);
  std::optional<std::uint64_t> last_sequence(std::int64_t writer_key);
  bool is_stored(std::int64_t key);
  void store_span(Writer& writer);
  void close_writers();

  Database database;
  std::unordered_map<std::string, Writer> writers;  // by writer id
  Statement insert_step;
  Statement insert_scalar;
  Statement insert_episode;
  Statement find_key;
  Statement put_span;

  // Scratch, kept for its memory.
  std::vector<std::byte> record_bytes;
  std::vector<char> scores_text;
  std::string statuses_text;
  std::string episode;
  std::string action;
  std::string observation;
  std::string metadata;
};

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
  insert_episode = Statement(
      database, "INSERT INTO episodes VALUES(?1, ?2, ?3) ON CONFLICT(session_id, episode_id) DO NOTHING",
      true);
  put_span = Statement(database,
                       "INSERT OR REPLACE INTO spans VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)", true);
  find_key = Statement(database,
                       "SELECT EXISTS(SELECT 1 FROM steps WHERE step_key = ?1) OR "
                       "EXISTS(SELECT 1 FROM scalars WHERE scalar_key = ?1)",
                       true);
}

void SqliteSink::Connection::register_writer(const SessionInfo& session, const WriterInfo& info) {
  Writer writer(session, info);
  Transaction transaction(database);
  const std::string created_at = iso_8601(session.created_ns);
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
  Statement(database, "UPDATE sessions SET closed_ns = NULL WHERE session_id = ?1 AND closed_ns IS NOT NULL")
      .bind(1, writer.session_id)
      .run();
  Statement(database, "UPDATE writers SET closed_ns = NULL WHERE writer_key = ?1 AND closed_ns IS NOT NULL")
      .bind(1, writer.writer_key)
      .run();
  writer.may_repeat = last_sequence(writer.writer_key).has_value();
  transaction.commit();
  writers.insert_or_assign(info.id, std::move(writer));
}

std::optional<std::uint64_t> SqliteSink::Connection::last_sequence(std::int64_t writer_key) {
  std::optional<std::uint64_t> last;
  for (const char* sql :
       {"SELECT step_key FROM steps WHERE step_key BETWEEN ?1 AND ?2 ORDER BY step_key DESC LIMIT 1",
        "SELECT scalar_key FROM scalars WHERE scalar_key BETWEEN ?1 AND ?2 ORDER BY scalar_key DESC LIMIT "
        "1"}) {
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
    const std::string_view kind = schema.kind == Schema::Kind::tree ? "tree" : "scalars";
    Statement(database, "INSERT INTO schemas(session_id, kind, definition) VALUES(?1, ?2, ?3)")
        .bind(1, writer.session_id)
        .bind(2, kind)
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

void SqliteSink::Connection::ensure_episode(Writer& writer, const std::string& name, std::int64_t time_ns) {
  if (writer.episodes.contains(name)) return;
  insert_episode.bind(1, writer.session_id).bind(2, name).bind(3, time_ns).run();
  if (writer.episodes.size() >= kMaxKnownEpisodes) writer.episodes.clear();
  writer.episodes.insert(name);
}

namespace {

/// JSON array of the scores by slot, null where there is none.
std::string_view write_scores(const RecordView& record, std::vector<char>& out) {
  const std::size_t slots = record.header->slots;
  if (out.size() < slots * (kMaxJsonNumber + 1) + 2) out.resize(slots * (kMaxJsonNumber + 1) + 2);
  const double* const scores = record.scores();
  const Status* const statuses = record.statuses();
  char* at = out.data();
  *at++ = '[';
  for (std::size_t i = 0; i < slots; ++i) {
    if (i != 0) *at++ = ',';
    if (statuses[i] == Status::scored) {
      at = write_json_number(at, scores[i]);
    } else {
      std::memcpy(at, "null", 4);
      at += 4;
    }
  }
  *at++ = ']';
  return {out.data(), static_cast<std::size_t>(at - out.data())};
}

bool all_scored(const RecordView& record) {
  const Status* const statuses = record.statuses();
  return std::all_of(statuses, statuses + record.header->slots, [](Status s) { return s == Status::scored; });
}

std::string_view write_statuses(const RecordView& record, std::string& out) {
  out.resize(record.header->slots);
  const Status* const statuses = record.statuses();
  for (std::size_t i = 0; i < out.size(); ++i) {
    out[i] = statuses[i] == Status::scored ? 's' : statuses[i] == Status::skipped ? 'k' : 'f';
  }
  return out;
}

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

/// Numbers as numbers, so that SQL can compare them; everything else as text.
void set_capture(OptionalColumn& column, const RecordView::Extra& capture, std::string& scratch) {
  if (capture.text.data() == nullptr) {
    column.set_null();
    return;
  }
  if (const auto integer = captured_integer(capture.text, capture.form)) {
    column.set(*integer);
    return;
  }
  const auto real = captured_real(capture.text, capture.form);
  if (real && !std::isnan(*real)) {  // SQLite would make NULL of a NaN
    column.set(*real);
    return;
  }
  scratch.clear();
  append_captured_text(scratch, capture.text, capture.form);
  column.set(std::string_view(scratch));
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
    Span& span = writer.span;
    if (span.records() == kRecordsPerSpan) {
      store_span(writer);
      span = {};
    }
    span.add(key, header.time_ns);
    any = true;
    record_bytes.clear();
    writer.encoder.encode(record, record_bytes);
    const std::string_view scores = write_scores(record, scores_text);

    if (header.kind == RecordKind::scalars) {
      ++span.scalars;
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

    RecordView::Extra action_capture{};
    RecordView::Extra observation_capture{};
    std::string_view episode_text;
    std::string_view metadata_json;
    record.for_each_extra([&](const RecordView::Extra& extra) {
      switch (extra.tag) {
        case ExtraTag::episode:
          if (episode_text.data() == nullptr) episode_text = extra.text;
          break;
        case ExtraTag::action:
          if (action_capture.text.data() == nullptr) action_capture = extra;
          break;
        case ExtraTag::observation:
          if (observation_capture.text.data() == nullptr) observation_capture = extra;
          break;
        case ExtraTag::metadata:
          if (metadata_json.data() == nullptr) metadata_json = extra.text;
          break;
        default:
          break;
      }
    });
    bool episode_changed = first_of_batch;
    first_of_batch = false;
    if (episode_text.data() == nullptr) {
      episode_changed = episode_changed || has_episode;
      episode_column.set_null();
      has_episode = false;
    } else if (!has_episode || episode_text != episode) {
      episode.clear();
      append_valid_utf8(episode, episode_text);
      ensure_episode(writer, episode, header.time_ns);
      episode_column.set(std::string_view(episode));
      has_episode = true;
      episode_changed = true;
    }
    span.add_step(header.step, episode_changed, has_episode, episode);
    if (header.slots != 0 && record.statuses()[0] == Status::scored && std::isfinite(record.scores()[0])) {
      reward_column.set(record.scores()[0]);  // slot 0 of a tree is its root
    } else {
      reward_column.set_null();
    }
    set_capture(action_column, action_capture, action);
    set_capture(observation_column, observation_capture, observation);
    if (metadata_json.data() == nullptr) {
      metadata_column.set_null();
    } else {
      metadata.clear();
      append_json_value(metadata, metadata_json);
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
    if (all_scored(record)) {
      statuses_column.set_null();
    } else {
      statuses_column.set(write_statuses(record, statuses_text));
    }
    step.bind(1, key)
        .bind(4, header.step)
        .bind(5, header.time_ns)
        .bind(13, scores)
        .bind_blob(15, record_bytes)
        .run();
  }
  if (any) store_span(writer);
}

void SqliteSink::Connection::store_span(Writer& writer) {
  const Span& span = writer.span;
  put_span.bind(1, span.first_key)
      .bind(2, span.last_key)
      .bind(3, writer.session_id)
      .bind(4, span.steps)
      .bind(5, span.scalars)
      .bind(6, span.first_ns)
      .bind(7, span.last_ns);
  if (span.steps != 0 && span.one_episode) {
    put_span.bind(8, span.episode);
  } else {
    put_span.bind_null(8);
  }
  if (span.steps != 0) {
    put_span.bind(9, span.first_step).bind(10, span.last_step);
  } else {
    put_span.bind_null(9).bind_null(10);
  }
  put_span.run();
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

namespace {

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
