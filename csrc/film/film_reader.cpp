#include "rubriscope/film/film_reader.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <deque>
#include <filesystem>
#include <limits>
#include <mutex>
#include <unordered_map>

#include "rubriscope/core/errors.h"
#include "rubriscope/sinks/sqlite/database.h"
#include "rubriscope/sinks/sqlite/format.h"

namespace rubriscope {

using sqlite::Database;
using sqlite::DatabaseError;
using sqlite::Statement;

namespace {

constexpr int kBusyTimeoutMs = 5000;
constexpr std::size_t kRecordsAChunk = 256;
constexpr std::int64_t kLowest = std::numeric_limits<std::int64_t>::min();
constexpr std::int64_t kHighest = std::numeric_limits<std::int64_t>::max();

/// Keys from `first` to `last`, both included, of one writer.
struct KeyRange {
  std::int64_t first;
  std::int64_t last;
  std::size_t writer;
};

struct WriterRow {
  std::int64_t key{};
  std::int64_t steps{};
  WriterInfo info;
};

struct SchemaRow {
  std::int64_t key{};
  SchemaPtr schema;
};

bool is_missing_or_empty(const std::string& path) {
  struct stat info{};
  return stat(path.c_str(), &info) != 0 || info.st_size == 0;
}

std::string as_uri(const std::string& path) {
  constexpr char hex[] = "0123456789ABCDEF";
  std::string uri = "file:";
  for (const char c : path) {
    if (c == '?' || c == '#' || c == '%') {
      uri += '%';
      uri += hex[static_cast<unsigned char>(c) >> 4];
      uri += hex[static_cast<unsigned char>(c) & 15];
    } else {
      uri += c;
    }
  }
  return uri + "?immutable=1";
}

/// What a reader can do something about.
[[noreturn]] void rethrow(const DatabaseError& error, const std::string& path) {
  switch (error.primary()) {
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      throw FormatError(path + " is damaged: " + error.what());
    case SQLITE_ERROR:
      throw FormatError(path + " does not hold the tables of format version " +
                        std::to_string(sqlite::kFormatVersion) + ": " + error.what());
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
      throw TimeoutError(path + " was locked by another process for " + std::to_string(kBusyTimeoutMs) +
                         " ms: " + error.what());
    case SQLITE_PERM:
    case SQLITE_READONLY:
      throw SystemError(EACCES, std::string("Reading a film: ") + error.what(), path);
    default:
      throw SystemError(EIO, std::string("Reading a film: ") + error.what(), path);
  }
}

Database open_read_only(const std::string& path) {
  if (sqlite::inspect_file(path) == sqlite::FileState::absent) {
    throw SystemError(ENOENT, "Opening a film", path);
  }
  // A connection that may write, kept from it: SQLite's read-only ones leave the log's files lying beside the
  // database, where the last other one to close tidies up. Without the right to write it is read-only anyway.
  Database database(path, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, kBusyTimeoutMs);
  try {
    database.execute("PRAGMA query_only = ON");
    sqlite::inspect_database(database, path);
  } catch (const DatabaseError& error) {
    // In a folder that cannot be written the log's index cannot be made. Where there is no log either, the
    // file is complete and nobody writes it.
    const bool no_room_for_index = error.primary() == SQLITE_CANTOPEN || error.primary() == SQLITE_READONLY;
    if (!no_room_for_index || !is_missing_or_empty(path + "-wal")) throw;
    database =
        Database(as_uri(path), SQLITE_OPEN_READONLY | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_URI, kBusyTimeoutMs);
    sqlite::inspect_database(database, path);
  }
  return database;
}

/// One consistent state of the file over several statements.
class ReadTransaction {
 public:
  explicit ReadTransaction(Database& database) : database_(database) { database_.execute("BEGIN"); }
  ~ReadTransaction() { sqlite3_exec(database_.handle(), "COMMIT", nullptr, nullptr, nullptr); }
  ReadTransaction(const ReadTransaction&) = delete;
  ReadTransaction& operator=(const ReadTransaction&) = delete;

 private:
  Database& database_;
};

bool step_matches(const FilmFilter& filter, std::int64_t step) {
  return step >= filter.start.value_or(kLowest) && (!filter.stop || step < *filter.stop);
}

bool matches(const FilmFilter& filter, const CborFields& fields) {
  if (!step_matches(filter, fields.step)) return false;
  return !filter.episode || (fields.episode.data() != nullptr && fields.episode == *filter.episode);
}

std::string quoted_list(const std::vector<std::string>& names) {
  std::string text;
  constexpr std::size_t most = 20;
  for (std::size_t i = 0; i < std::min(names.size(), most); ++i) {
    if (i != 0) text += ", ";
    text += '"' + names[i] + '"';
  }
  if (names.size() > most) text += ", … (" + std::to_string(names.size()) + " in all)";
  return text.empty() ? "none" : text;
}

/// The slot of a path in each schema.
class SlotFinder {
 public:
  static constexpr std::size_t kNone = std::numeric_limits<std::size_t>::max();

  SlotFinder(const std::vector<SchemaRow>& schemas, std::string_view path) {
    for (const SchemaRow& row : schemas) {
      for (std::size_t slot = 0; slot < row.schema->slots.size(); ++slot) {
        const auto& paths = row.schema->slots[slot].paths;
        if (std::find(paths.begin(), paths.end(), path) == paths.end()) continue;
        slots_.emplace(row.key, slot);
        break;
      }
    }
  }

  bool found() const { return !slots_.empty(); }

  std::size_t slot(std::int64_t schema_key) {
    if (schema_key != last_key_) {
      const auto found = slots_.find(schema_key);
      last_slot_ = found == slots_.end() ? kNone : found->second;
      last_key_ = schema_key;
    }
    return last_slot_;
  }

 private:
  std::unordered_map<std::int64_t, std::size_t> slots_;
  std::int64_t last_key_{-1};
  std::size_t last_slot_{kNone};
};

/// The place of an episode's name among all of the session's.
class EpisodeNumbers {
 public:
  explicit EpisodeNumbers(const std::vector<FilmEpisode>& episodes) {
    numbers_.reserve(episodes.size());
    for (const FilmEpisode& episode : episodes) {
      numbers_.emplace(episode.name, static_cast<std::int32_t>(numbers_.size()));
    }
  }

  std::int32_t number(std::string_view name) {
    if (name.data() == nullptr) return -1;
    if (last_ >= 0 && name == last_name_) return last_;
    last_name_ = name;
    const auto found = numbers_.find(last_name_);
    return last_ = found == numbers_.end() ? -1 : found->second;
  }

 private:
  std::unordered_map<std::string, std::int32_t> numbers_;
  std::string last_name_;
  std::int32_t last_{-1};
};

void append_position(PositionColumns& at, EpisodeNumbers& episodes, const CborFields& fields,
                     std::size_t writer, std::int32_t rank) {
  at.step.push_back(fields.step);
  at.time_ns.push_back(fields.time_ns);
  at.sequence.push_back(static_cast<std::int64_t>(fields.sequence));
  at.writer.push_back(static_cast<std::int32_t>(writer));
  at.rank.push_back(rank);
  at.group.push_back(fields.group);
  at.sample.push_back(fields.sample);
  at.episode.push_back(episodes.number(fields.episode));
}

void reserve(PositionColumns& at, std::size_t records) {
  at.step.reserve(records);
  at.time_ns.reserve(records);
  at.sequence.reserve(records);
  at.writer.reserve(records);
  at.rank.reserve(records);
  at.group.reserve(records);
  at.sample.reserve(records);
  at.episode.reserve(records);
}

}  // namespace

struct FilmReader::State {
  explicit State(const std::string& at_path) : path(at_path) {
    try {
      database = open_read_only(path);
    } catch (const DatabaseError& error) {
      rethrow(error, path);
    }
  }

  void require_session(std::int64_t session);
  std::vector<WriterRow> writers(std::int64_t session);
  std::vector<SchemaRow> schemas(std::int64_t session, std::string_view kind);
  SchemaPtr schema(std::int64_t key);
  std::vector<FilmEpisode> episodes(std::int64_t session);
  SessionInfo session_info(std::int64_t session);
  std::vector<KeyRange> ranges(const std::vector<WriterRow>& of_writers, const FilmFilter& filter);

  /// Calls visit(key, schema_key, record) for the keys of `range`, at most `most` times.
  template <class Visit>
  void scan(Statement& select, const KeyRange& range, std::size_t most, Visit&& visit) {
    select.bind(1, range.first).bind(2, range.last);
    try {
      while (most-- != 0 && select.step()) visit(select.integer(0), select.integer(1), select.blob(2));
    } catch (...) {
      select.reset();
      throw;
    }
    select.reset();
  }

  Statement select_steps() {
    return Statement(database,
                     "SELECT step_key, schema_key, record FROM steps WHERE step_key BETWEEN ?1 AND ?2 "
                     "ORDER BY step_key",
                     true);
  }

  /// One call of the public interface: alone on the connection, errors as the caller knows them.
  template <class Call>
  auto read(Call&& call) {
    const std::lock_guard lock(mutex);
    try {
      return call();
    } catch (const DatabaseError& error) {
      rethrow(error, path);
    }
  }

  const std::string path;
  std::mutex mutex;
  Database database;
  std::unordered_map<std::int64_t, SchemaPtr> known_schemas;
};

void FilmReader::State::require_session(std::int64_t session) {
  Statement find(database, "SELECT 1 FROM sessions WHERE session_id = ?1");
  find.bind(1, session);
  if (!find.step()) throw KeyError(path + " has no session number " + std::to_string(session));
}

SessionInfo FilmReader::State::session_info(std::int64_t session) {
  Statement find(database, "SELECT uuid, name, created_ns, metadata FROM sessions WHERE session_id = ?1");
  find.bind(1, session);
  if (!find.step()) throw KeyError(path + " has no session number " + std::to_string(session));
  return {std::string(find.text(0)), std::string(find.text(1)), find.integer(2), std::string(find.text(3))};
}

std::vector<WriterRow> FilmReader::State::writers(std::int64_t session) {
  Statement select(
      database,
      "SELECT writer_key, (SELECT sum(steps) FROM spans WHERE first_key BETWEEN writer_key << 40 AND "
      "(writer_key << 40) + 0xFFFFFFFFFF), writer_id, rank, world_size, host, pid, started_ns FROM writers "
      "WHERE session_id = ?1 ORDER BY writer_key");
  select.bind(1, session);
  std::vector<WriterRow> found;
  while (select.step()) {
    WriterRow& row = found.emplace_back();
    row.key = select.integer(0);
    row.steps = select.integer(1);
    row.info.id = select.text(2);
    row.info.rank = static_cast<std::int32_t>(select.integer(3));
    row.info.world_size = static_cast<std::int32_t>(select.integer(4));
    row.info.host = select.text(5);
    row.info.pid = select.integer(6);
    row.info.started_ns = select.integer(7);
  }
  return found;
}

std::vector<FilmEpisode> FilmReader::State::episodes(std::int64_t session) {
  Statement select(database,
                   "SELECT episode_id, started_ns FROM episodes WHERE session_id = ?1 "
                   "ORDER BY started_ns, episode_id");
  select.bind(1, session);
  std::vector<FilmEpisode> found;
  while (select.step()) found.push_back({std::string(select.text(0)), select.integer(1)});
  return found;
}

SchemaPtr FilmReader::State::schema(std::int64_t key) {
  const auto known = known_schemas.find(key);
  if (known != known_schemas.end()) return known->second;
  Statement find(database, "SELECT definition FROM schemas WHERE schema_key = ?1");
  find.bind(1, key);
  if (!find.step())
    throw FormatError(path + ": a record names schema " + std::to_string(key) + ", which is missing");
  auto schema = std::make_shared<const Schema>(
      Schema::from_definition_json(find.text(0), static_cast<std::uint32_t>(key)));
  known_schemas.emplace(key, schema);
  return schema;
}

std::vector<SchemaRow> FilmReader::State::schemas(std::int64_t session, std::string_view kind) {
  Statement select(database,
                   "SELECT schema_key FROM schemas WHERE session_id = ?1 AND kind = ?2 ORDER BY schema_key");
  select.bind(1, session).bind(2, kind);
  std::vector<std::int64_t> keys;
  while (select.step()) keys.push_back(select.integer(0));
  std::vector<SchemaRow> found;
  for (const std::int64_t key : keys) found.push_back({key, schema(key)});
  return found;
}

std::vector<KeyRange> FilmReader::State::ranges(const std::vector<WriterRow>& of_writers,
                                                const FilmFilter& filter) {
  std::vector<KeyRange> found;
  const bool everything = !filter.episode && !filter.start && !filter.stop;
  for (std::size_t i = 0; i < of_writers.size(); ++i) {
    if (filter.writer && *filter.writer != i) continue;
    const std::int64_t first = of_writers[i].key << sqlite::kSequenceBits;
    const std::int64_t last = first | static_cast<std::int64_t>(sqlite::kSequenceMask);
    if (everything) {
      found.push_back({first, last, i});
      continue;
    }
    Statement select(database,
                     "SELECT first_key, last_key FROM spans WHERE first_key BETWEEN ?1 AND ?2 "
                     "AND last_step >= ?3 AND first_step <= ?4 "
                     "AND (?5 IS NULL OR episode_id IS NULL OR episode_id = ?5) ORDER BY first_key");
    select.bind(1, first)
        .bind(2, last)
        .bind(3, filter.start.value_or(kLowest))
        .bind(4, filter.stop.value_or(kHighest));
    if (filter.episode) select.bind(5, *filter.episode);
    std::int64_t seen = first - 1;  // spans of a batch that was stored late may overlap others
    while (select.step()) {
      const std::int64_t from = std::max(select.integer(0), seen + 1);
      const std::int64_t to = select.integer(1);
      if (from > to) continue;
      seen = to;
      if (!found.empty() && found.back().writer == i && found.back().last + 1 == from) {
        found.back().last = to;
      } else {
        found.push_back({from, to, i});
      }
    }
  }
  return found;
}

FilmReader::FilmReader(const std::string& path)
    : state_(std::make_shared<State>(std::filesystem::absolute(path).lexically_normal().string())) {}

FilmReader::~FilmReader() = default;

const std::string& FilmReader::path() const { return state_->path; }

std::vector<FilmSession> FilmReader::sessions() const {
  return state_->read([&] {
    Statement select(
        state_->database,
        "SELECT s.session_id, s.uuid, s.name, s.created_ns, s.metadata, s.created_at, s.closed_ns, "
        "coalesce(c.steps, 0), coalesce(c.scalars, 0), "
        "(SELECT count(*) FROM writers w WHERE w.session_id = s.session_id), c.first_ns, c.last_ns, "
        "(SELECT count(*) FROM episodes e WHERE e.session_id = s.session_id) "
        "FROM sessions s LEFT JOIN (SELECT session_id, sum(steps) AS steps, sum(scalars) AS scalars, "
        "min(first_ns) AS first_ns, max(last_ns) AS last_ns FROM spans GROUP BY session_id) c "
        "ON c.session_id = s.session_id ORDER BY s.session_id");
    const auto optional_integer = [&](int column) {
      return select.is_null(column) ? std::nullopt : std::optional<std::int64_t>(select.integer(column));
    };
    std::vector<FilmSession> found;
    while (select.step()) {
      FilmSession& session = found.emplace_back();
      session.id = select.integer(0);
      session.info = {std::string(select.text(1)), std::string(select.text(2)), select.integer(3),
                      std::string(select.text(4))};
      session.created_at = select.text(5);
      session.closed_ns = optional_integer(6);
      session.steps = select.integer(7);
      session.scalars = select.integer(8);
      session.writers = select.integer(9);
      session.first_ns = optional_integer(10);
      session.last_ns = optional_integer(11);
      session.episodes = select.integer(12);
      Statement ranks(state_->database,
                      "SELECT DISTINCT rank FROM writers WHERE session_id = ?1 ORDER BY rank");
      ranks.bind(1, session.id);
      while (ranks.step()) session.ranks.push_back(static_cast<std::int32_t>(ranks.integer(0)));
    }
    return found;
  });
}

std::int64_t FilmReader::find_session(std::string_view uuid_or_name) const {
  return state_->read([&] {
    for (const char* sql :
         {"SELECT session_id FROM sessions WHERE uuid = ?1",
          "SELECT session_id FROM sessions WHERE name = ?1 ORDER BY created_ns DESC, session_id DESC",
          "SELECT session_id FROM sessions WHERE CAST(session_id AS TEXT) = ?1"}) {
      Statement find(state_->database, sql);
      find.bind(1, uuid_or_name);
      if (find.step()) return find.integer(0);
    }
    std::vector<std::string> names;
    Statement select(state_->database,
                     "SELECT name FROM sessions GROUP BY name ORDER BY max(session_id) DESC");
    while (select.step()) names.emplace_back(select.text(0));
    throw KeyError(state_->path + " has no session \"" + std::string(uuid_or_name) +
                   "\"; sessions: " + quoted_list(names));
  });
}

namespace {

std::vector<std::string> all_paths(const std::vector<SchemaRow>& schemas) {
  std::vector<std::string> found;
  std::unordered_map<std::string_view, bool> seen;
  for (const SchemaRow& row : schemas) {
    for (const Slot& slot : row.schema->slots) {
      for (const std::string& path : slot.paths) {
        if (seen.emplace(path, true).second) found.push_back(path);
      }
    }
  }
  return found;
}

}  // namespace

std::vector<std::string> FilmReader::paths(std::int64_t session) const {
  return state_->read([&] {
    state_->require_session(session);
    return all_paths(state_->schemas(session, "tree"));
  });
}

std::vector<std::string> FilmReader::scalar_names(std::int64_t session) const {
  return state_->read([&] {
    state_->require_session(session);
    return all_paths(state_->schemas(session, "scalars"));
  });
}

std::vector<WriterInfo> FilmReader::writers(std::int64_t session) const {
  return state_->read([&] {
    state_->require_session(session);
    std::vector<WriterInfo> found;
    for (const WriterRow& row : state_->writers(session)) found.push_back(row.info);
    return found;
  });
}

std::vector<FilmEpisode> FilmReader::episodes(std::int64_t session) const {
  return state_->read([&] {
    state_->require_session(session);
    return state_->episodes(session);
  });
}

ScoreColumns FilmReader::scores(std::int64_t session, std::string_view path, const FilmFilter& filter) const {
  return state_->read([&] {
    const ReadTransaction transaction(state_->database);
    state_->require_session(session);
    const std::vector<SchemaRow> schemas = state_->schemas(session, "tree");
    SlotFinder finder(schemas, path);
    if (!finder.found()) {
      throw KeyError("session " + std::to_string(session) + " of " + state_->path + " has no rubric \"" +
                     std::string(path) + "\"; rubrics: " + quoted_list(all_paths(schemas)));
    }
    const std::vector<WriterRow> writers = state_->writers(session);
    ScoreColumns columns;
    EpisodeNumbers episodes(state_->episodes(session));
    if (!filter.episode && !filter.start && !filter.stop) {
      std::int64_t steps = 0;
      for (const WriterRow& writer : writers) steps += writer.steps;
      reserve(columns.at, static_cast<std::size_t>(steps));
      columns.score.reserve(static_cast<std::size_t>(steps));
      columns.status.reserve(static_cast<std::size_t>(steps));
      columns.duration_ns.reserve(static_cast<std::size_t>(steps));
    }
    Statement select = state_->select_steps();
    for (const KeyRange& range : state_->ranges(writers, filter)) {
      const std::int32_t rank = writers[range.writer].info.rank;
      state_->scan(select, range, kHighest,
                   [&](std::int64_t, std::int64_t schema_key, std::span<const std::byte> record) {
                     const std::size_t slot = finder.slot(schema_key);
                     if (slot == SlotFinder::kNone) return;
                     const CborFields fields = read_cbor_fields(record);
                     if (!matches(filter, fields)) return;
                     if (slot >= fields.slots) {
                       throw FormatError(state_->path + ": a record has fewer slots than its schema");
                     }
                     append_position(columns.at, episodes, fields, range.writer, rank);
                     columns.score.push_back(fields.score(slot));
                     columns.status.push_back(static_cast<std::uint8_t>(fields.statuses[slot]));
                     columns.duration_ns.push_back(static_cast<std::int64_t>(fields.duration_ns(slot)));
                   });
    }
    return columns;
  });
}

ScoreMatrix FilmReader::score_matrix(std::int64_t session, const FilmFilter& filter) const {
  return state_->read([&] {
    const ReadTransaction transaction(state_->database);
    state_->require_session(session);
    const std::vector<SchemaRow> schemas = state_->schemas(session, "tree");
    ScoreMatrix matrix;
    matrix.paths = all_paths(schemas);
    const std::size_t width = matrix.paths.size();
    std::unordered_map<std::string_view, std::size_t> columns_of;
    for (std::size_t i = 0; i < width; ++i) columns_of.emplace(matrix.paths[i], i);
    // For each schema: pairs of slot and column, by slot.
    std::unordered_map<std::int64_t, std::vector<std::pair<std::size_t, std::size_t>>> places;
    for (const SchemaRow& row : schemas) {
      auto& of_schema = places[row.key];
      for (std::size_t slot = 0; slot < row.schema->slots.size(); ++slot) {
        for (const std::string& path : row.schema->slots[slot].paths) {
          of_schema.emplace_back(slot, columns_of.at(path));
        }
      }
    }
    const std::vector<WriterRow> writers = state_->writers(session);
    EpisodeNumbers episodes(state_->episodes(session));
    std::vector<double> row_scores;
    Statement select = state_->select_steps();
    for (const KeyRange& range : state_->ranges(writers, filter)) {
      const std::int32_t rank = writers[range.writer].info.rank;
      state_->scan(select, range, kHighest,
                   [&](std::int64_t, std::int64_t schema_key, std::span<const std::byte> record) {
                     const CborFields fields = read_cbor_fields(record);
                     if (!matches(filter, fields)) return;
                     const auto of_schema = places.find(schema_key);
                     if (of_schema == places.end()) {
                       throw FormatError(state_->path + ": a record names schema " +
                                         std::to_string(schema_key) + ", which is not of its session");
                     }
                     append_position(matrix.at, episodes, fields, range.writer, rank);
                     row_scores.resize(fields.slots);
                     fields.read_scores(row_scores.data());
                     const std::size_t start = matrix.scores.size();
                     matrix.scores.resize(start + width, std::numeric_limits<double>::quiet_NaN());
                     matrix.statuses.resize(start + width, static_cast<std::uint8_t>(Status::skipped));
                     for (const auto& [slot, column] : of_schema->second) {
                       if (slot >= fields.slots) {
                         throw FormatError(state_->path + ": a record has fewer slots than its schema");
                       }
                       matrix.scores[start + column] = row_scores[slot];
                       matrix.statuses[start + column] = static_cast<std::uint8_t>(fields.statuses[slot]);
                     }
                   });
    }
    return matrix;
  });
}

std::vector<PathSummary> FilmReader::summaries(std::int64_t session, std::size_t bins,
                                               const FilmFilter& filter) const {
  if (bins == 0 || bins > 1'000'000) {
    throw ValueError("bins must be from 1 to 1000000, got " + std::to_string(bins));
  }
  return state_->read([&] {
    const ReadTransaction transaction(state_->database);
    state_->require_session(session);
    const std::vector<SchemaRow> schemas = state_->schemas(session, "tree");
    std::vector<PathSummary> summaries;
    std::unordered_map<std::string, std::size_t> index_of;
    for (const std::string& path : all_paths(schemas)) {
      index_of.emplace(path, summaries.size());
      summaries.emplace_back().path = path;
    }
    std::unordered_map<std::int64_t, std::vector<std::pair<std::size_t, std::size_t>>> places;
    for (const SchemaRow& row : schemas) {
      auto& of_schema = places[row.key];
      for (std::size_t slot = 0; slot < row.schema->slots.size(); ++slot) {
        for (const std::string& path : row.schema->slots[slot].paths) {
          of_schema.emplace_back(slot, index_of.at(path));
        }
      }
    }

    Statement extent(state_->database,
                     "SELECT min(first_step), max(last_step) FROM spans WHERE session_id = ?1 "
                     "AND (?2 IS NULL OR episode_id IS NULL OR episode_id = ?2)");
    extent.bind(1, session);
    if (filter.episode) extent.bind(2, *filter.episode);
    if (!extent.step() || extent.is_null(0)) return summaries;
    const std::int64_t low = std::max(extent.integer(0), filter.start.value_or(kLowest));
    const std::int64_t high = filter.stop ? std::min(extent.integer(1), *filter.stop - 1) : extent.integer(1);
    if (high < low) return summaries;
    const double steps = static_cast<double>(high) - static_cast<double>(low) + 1;
    const std::size_t shares = steps < static_cast<double>(bins) ? static_cast<std::size_t>(steps) : bins;
    std::vector<std::vector<std::int64_t>> counts(summaries.size(), std::vector<std::int64_t>(shares));
    for (PathSummary& summary : summaries) summary.curve.assign(shares, 0.0);

    const std::vector<WriterRow> writers = state_->writers(session);
    std::vector<double> scores;
    std::vector<std::uint64_t> durations;
    Statement select = state_->select_steps();
    for (const KeyRange& range : state_->ranges(writers, filter)) {
      state_->scan(select, range, kHighest,
                   [&](std::int64_t, std::int64_t schema_key, std::span<const std::byte> record) {
                     const CborFields fields = read_cbor_fields(record);
                     if (!matches(filter, fields)) return;
                     const auto of_schema = places.find(schema_key);
                     if (of_schema == places.end()) {
                       throw FormatError(state_->path + ": a record names schema " +
                                         std::to_string(schema_key) + ", which is not of its session");
                     }
                     scores.resize(fields.slots);
                     durations.resize(fields.slots);
                     fields.read_scores(scores.data());
                     fields.read_durations(durations.data());
                     const auto share = std::min(
                         static_cast<std::size_t>(std::max(0.0, static_cast<double>(fields.step - low) *
                                                                    static_cast<double>(shares) / steps)),
                         shares - 1);
                     for (const auto& [slot, index] : of_schema->second) {
                       if (slot >= fields.slots) {
                         throw FormatError(state_->path + ": a record has fewer slots than its schema");
                       }
                       PathSummary& summary = summaries[index];
                       const auto status = static_cast<Status>(fields.statuses[slot]);
                       if (status == Status::skipped) {
                         ++summary.skipped;
                         continue;
                       }
                       summary.duration_ns += static_cast<double>(durations[slot]);
                       if (status != Status::scored) {
                         ++summary.failed;
                         continue;
                       }
                       const double score = scores[slot];
                       if (summary.scored++ == 0) summary.least = summary.greatest = score;
                       summary.least = std::min(summary.least, score);
                       summary.greatest = std::max(summary.greatest, score);
                       const double from_mean = score - summary.mean;
                       summary.mean += from_mean / static_cast<double>(summary.scored);
                       summary.squares += from_mean * (score - summary.mean);
                       summary.curve[share] += score;
                       ++counts[index][share];
                     }
                   });
    }
    for (std::size_t i = 0; i < summaries.size(); ++i) {
      for (std::size_t share = 0; share < shares; ++share) {
        summaries[i].curve[share] = counts[i][share] == 0
                                        ? std::numeric_limits<double>::quiet_NaN()
                                        : summaries[i].curve[share] / static_cast<double>(counts[i][share]);
      }
    }
    return summaries;
  });
}

ScoreColumns FilmReader::scalars(std::int64_t session, std::string_view name,
                                 const FilmFilter& filter) const {
  return state_->read([&] {
    const ReadTransaction transaction(state_->database);
    state_->require_session(session);
    const std::vector<SchemaRow> schemas = state_->schemas(session, "scalars");
    SlotFinder finder(schemas, name);
    if (!finder.found()) {
      throw KeyError("session " + std::to_string(session) + " of " + state_->path + " has no scalar \"" +
                     std::string(name) + "\"; scalars: " + quoted_list(all_paths(schemas)));
    }
    Statement select(state_->database,
                     "SELECT scalar_key, schema_key, record FROM scalars WHERE scalar_key BETWEEN ?1 AND ?2 "
                     "ORDER BY scalar_key",
                     true);
    ScoreColumns columns;
    EpisodeNumbers episodes(state_->episodes(session));
    const std::vector<WriterRow> writers = state_->writers(session);
    FilmFilter all_steps;  // the spans are of snapshots: they say nothing about scalars
    all_steps.writer = filter.writer;
    for (const KeyRange& range : state_->ranges(writers, all_steps)) {
      const std::int32_t rank = writers[range.writer].info.rank;
      state_->scan(select, range, kHighest,
                   [&](std::int64_t, std::int64_t schema_key, std::span<const std::byte> record) {
                     const std::size_t slot = finder.slot(schema_key);
                     if (slot == SlotFinder::kNone) return;
                     const CborFields fields = read_cbor_fields(record);
                     if (!step_matches(filter, fields.step)) return;
                     if (slot >= fields.slots) {
                       throw FormatError(state_->path + ": a record has fewer slots than its schema");
                     }
                     append_position(columns.at, episodes, fields, range.writer, rank);
                     columns.score.push_back(fields.score(slot));
                     columns.status.push_back(static_cast<std::uint8_t>(fields.statuses[slot]));
                   });
    }
    return columns;
  });
}

// ---- Cursor ----

struct FilmReader::Cursor::Plan {
  std::shared_ptr<State> state;
  FilmFilter filter;
  SessionInfo session;
  std::vector<WriterRow> writers;
  std::vector<KeyRange> ranges;
  std::size_t range{0};  // the one being read
  Statement select;
  std::deque<std::pair<DecodedRecord, std::size_t>> ready;  // with the writer's index

  ~Plan() {
    const std::lock_guard lock(state->mutex);
    select = Statement();
  }

  void fill();
};

void FilmReader::Cursor::Plan::fill() {
  state->read([&] {
    while (ready.empty() && range < ranges.size()) {
      KeyRange& now = ranges[range];
      std::size_t seen = 0;
      std::int64_t next_key = now.first;
      std::vector<std::pair<std::int64_t, DecodedRecord>> chunk;
      state->scan(select, now, kRecordsAChunk,
                  [&](std::int64_t key, std::int64_t schema_key, std::span<const std::byte> record) {
                    ++seen;
                    next_key = key + 1;
                    if ((filter.episode || filter.start || filter.stop) &&
                        !matches(filter, read_cbor_fields(record))) {
                      return;
                    }
                    chunk.emplace_back(schema_key, decode_cbor(record));
                  });
      for (auto& [schema_key, record] : chunk) {
        record.schema = state->schema(schema_key);
        if (record.view().header->slots != record.schema->slots.size()) {
          throw FormatError(state->path + ": a record has " + std::to_string(record.view().header->slots) +
                            " slots, its schema " + std::to_string(record.schema->slots.size()));
        }
        ready.emplace_back(std::move(record), now.writer);
      }
      now.first = next_key;
      if (seen < kRecordsAChunk) ++range;
    }
  });
}

FilmReader::Cursor::Cursor(std::unique_ptr<Plan> plan) : plan_(std::move(plan)) {}
FilmReader::Cursor::~Cursor() = default;
FilmReader::Cursor::Cursor(Cursor&&) noexcept = default;
FilmReader::Cursor& FilmReader::Cursor::operator=(Cursor&&) noexcept = default;

std::optional<FilmSnapshot> FilmReader::Cursor::next() {
  if (plan_->ready.empty()) plan_->fill();
  if (plan_->ready.empty()) return std::nullopt;
  auto [record, writer] = std::move(plan_->ready.front());
  plan_->ready.pop_front();
  return FilmSnapshot{std::move(record), &plan_->session, &plan_->writers[writer].info};
}

FilmReader::Cursor FilmReader::snapshots(std::int64_t session, const FilmFilter& filter) const {
  auto plan = std::make_unique<Cursor::Plan>();
  plan->state = state_;
  plan->filter = filter;
  state_->read([&] {
    const ReadTransaction transaction(state_->database);
    plan->session = state_->session_info(session);
    plan->writers = state_->writers(session);
    plan->ranges = state_->ranges(plan->writers, filter);
    plan->select = state_->select_steps();
  });
  return Cursor(std::move(plan));
}

}  // namespace rubriscope
