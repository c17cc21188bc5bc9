#include "rubriscope/film/film_reader.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <deque>
#include <filesystem>
#include <limits>
#include <map>
#include <mutex>
#include <unordered_map>

#include "rubriscope/core/errors.h"
#include "rubriscope/film/record_scan.h"
#include "rubriscope/film/unsealer.h"
#include "rubriscope/sinks/sqlite/database.h"
#include "rubriscope/sinks/sqlite/format.h"
#include "rubriscope/sinks/sqlite/reading.h"
#include "rubriscope/sinks/sqlite/vault_store.h"

namespace rubriscope {

using film::all_paths;
using film::append_position;
using film::EpisodeNumbers;
using film::matches;
using film::SchemaRow;
using film::ScoreScan;
using film::SlotFinder;
using film::SummaryScan;
using sqlite::Database;
using sqlite::DatabaseError;
using sqlite::open_read_only;
using sqlite::ReadTransaction;
using sqlite::rethrow;
using sqlite::Statement;

namespace {

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

}  // namespace

struct FilmReader::State {
  State(const std::string& at_path, const std::optional<vault::Kek>& kek)
      : path(at_path), unsealer(at_path, [this](const std::string& writer) { return data_key(writer); }) {
    try {
      database = open_read_only(path);
      if (kek) unsealer.unlock(*kek, sqlite::stored_search_key(database));
    } catch (const DatabaseError& error) {
      rethrow(error, path);
    }
  }

  film::DataKey data_key(const std::string& writer_id);
  void require_session(std::int64_t session);
  std::vector<WriterRow> writers(std::int64_t session);
  std::vector<SchemaRow> schemas(std::int64_t session, std::string_view kind);
  SchemaPtr schema(std::int64_t key);
  std::vector<FilmEpisode> episodes(std::int64_t session);
  std::vector<std::string> episode_names(std::int64_t session);
  SessionInfo session_info(std::int64_t session);
  std::vector<KeyRange> ranges(const std::vector<WriterRow>& of_writers, const FilmFilter& filter);

  /// Calls visit(key, schema_key, record) for the keys of `range`, at most `most` times.
  template <class Visit>
  void scan(Statement& select, const KeyRange& range, std::size_t most, Visit&& visit) {
    select.bind(1, range.first).bind(2, range.last);
    try {
      while (most-- != 0 && select.step()) {
        const std::int64_t schema_key = select.integer(1);
        const std::span<const std::byte> record = select.blob(2);
        visit(select.integer(0), schema_key, is_sealed(schema_key) ? unsealer.record(record) : record);
      }
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

  /// Whether the records of a schema are encrypted.
  bool is_sealed(std::int64_t schema_key) {
    if (schema_key != last_schema_key) {
      last_is_sealed = known_schema(schema_key).sealed;
      last_schema_key = schema_key;
    }
    return last_is_sealed;
  }

  struct KnownSchema {
    SchemaPtr schema;
    bool sealed;
  };
  const KnownSchema& known_schema(std::int64_t key);

  const std::string path;
  std::mutex mutex;
  Database database;
  film::Unsealer unsealer;
  std::unordered_map<std::int64_t, KnownSchema> known_schemas;
  std::int64_t last_schema_key{-1};
  bool last_is_sealed{false};
};

film::DataKey FilmReader::State::data_key(const std::string& writer_id) {
  Statement find(database, "SELECT writer_key FROM writers WHERE writer_id = ?1");
  if (!find.bind(1, writer_id).step()) return {};
  sqlite::WriterKey key = sqlite::stored_data_key(database, find.integer(0));
  return {std::move(key.session_id), std::move(key.wrapped)};
}

void FilmReader::State::require_session(std::int64_t session) {
  Statement find(database, "SELECT 1 FROM sessions WHERE session_id = ?1");
  find.bind(1, session);
  if (!find.step()) throw KeyError(path + " has no session number " + std::to_string(session));
}

SessionInfo FilmReader::State::session_info(std::int64_t session) {
  Statement find(database, "SELECT uuid, name, created_ns, metadata FROM sessions WHERE session_id = ?1");
  find.bind(1, session);
  if (!find.step()) throw KeyError(path + " has no session number " + std::to_string(session));
  return {std::string(find.text(0)), std::string(find.text(1)), find.integer(2),
          unsealer.metadata(std::string(find.text(3)))};
}

std::vector<WriterRow> FilmReader::State::writers(std::int64_t session) {
  Statement select(
      database,
      "SELECT writer_key, (SELECT sum(steps) FROM extents WHERE first_key BETWEEN writer_key << 40 AND "
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
  std::vector<FilmEpisode> found;
  Statement sealed(database,
                   "SELECT 1 FROM schemas WHERE session_id = ?1 AND definition LIKE "
                   "'{\"kind\":\"%\",\"sealed\":%'");
  if (sealed.bind(1, session).step()) {
    // Their names are in the records alone.
    std::map<std::string, std::int64_t, std::less<>> began;
    Statement select = select_steps();
    for (const KeyRange& range : ranges(writers(session), {})) {
      scan(select, range, kHighest, [&](std::int64_t, std::int64_t, std::span<const std::byte> record) {
        const CborFields fields = read_cbor_fields(record);
        if (fields.episode.data() == nullptr) return;
        const auto known = began.try_emplace(std::string(fields.episode), fields.time_ns).first;
        known->second = std::min(known->second, fields.time_ns);
      });
    }
    for (const auto& [name, started_ns] : began) found.push_back({name, started_ns});
    std::stable_sort(found.begin(), found.end(),
                     [](const auto& a, const auto& b) { return a.started_ns < b.started_ns; });
    return found;
  }
  Statement select(database,
                   "SELECT episode_id, started_ns FROM episodes WHERE session_id = ?1 "
                   "ORDER BY started_ns, episode_id");
  select.bind(1, session);
  while (select.step()) found.push_back({std::string(select.text(0)), select.integer(1)});
  return found;
}

std::vector<std::string> FilmReader::State::episode_names(std::int64_t session) {
  std::vector<std::string> names;
  for (FilmEpisode& episode : episodes(session)) names.push_back(std::move(episode.name));
  return names;
}

const FilmReader::State::KnownSchema& FilmReader::State::known_schema(std::int64_t key) {
  const auto known = known_schemas.find(key);
  if (known != known_schemas.end()) return known->second;
  Statement find(database, "SELECT definition FROM schemas WHERE schema_key = ?1");
  find.bind(1, key);
  if (!find.step())
    throw FormatError(path + ": a record names schema " + std::to_string(key) + ", which is missing");
  const Schema stored = Schema::from_definition_json(find.text(0), static_cast<std::uint32_t>(key));
  return known_schemas.emplace(key, KnownSchema{unsealer.schema(stored), !stored.sealed.empty()})
      .first->second;
}

SchemaPtr FilmReader::State::schema(std::int64_t key) { return known_schema(key).schema; }

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
                     "SELECT first_key, last_key FROM extents WHERE first_key BETWEEN ?1 AND ?2 "
                     "AND last_step >= ?3 AND first_step <= ?4 "
                     "AND (?5 IS NULL OR episode_id IS NULL OR episode_id = ?5) ORDER BY first_key");
    select.bind(1, first)
        .bind(2, last)
        .bind(3, filter.start.value_or(kLowest))
        .bind(4, filter.stop.value_or(kHighest));
    if (filter.episode) select.bind(5, *filter.episode);
    std::int64_t seen = first - 1;  // extents of a batch that was stored late may overlap others
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

FilmReader::FilmReader(const std::string& path, const std::optional<vault::Kek>& kek)
    : state_(std::make_shared<State>(std::filesystem::absolute(path).lexically_normal().string(), kek)) {}

FilmReader::~FilmReader() = default;

const std::string& FilmReader::path() const { return state_->path; }

std::vector<FilmSession> FilmReader::sessions() const {
  return state_->read([&] {
    Statement select(
        state_->database,
        "SELECT s.session_id, s.uuid, s.name, s.created_ns, s.metadata, s.created_at, s.closed_ns, "
        "coalesce(c.steps, 0), coalesce(c.scalars, 0), coalesce(c.events, 0), "
        "(SELECT count(*) FROM writers w WHERE w.session_id = s.session_id), c.first_ns, c.last_ns, "
        "(SELECT count(*) FROM episodes e WHERE e.session_id = s.session_id) "
        "FROM sessions s LEFT JOIN (SELECT session_id, sum(steps) AS steps, sum(scalars) AS scalars, "
        "sum(events) AS events, min(first_ns) AS first_ns, max(last_ns) AS last_ns FROM extents GROUP BY "
        "session_id) c "
        "ON c.session_id = s.session_id ORDER BY s.session_id");
    const auto optional_integer = [&](int column) {
      return select.is_null(column) ? std::nullopt : std::optional<std::int64_t>(select.integer(column));
    };
    std::vector<FilmSession> found;
    while (select.step()) {
      FilmSession& session = found.emplace_back();
      session.id = select.integer(0);
      session.info = {std::string(select.text(1)), std::string(select.text(2)), select.integer(3),
                      state_->unsealer.metadata(std::string(select.text(4)))};
      session.created_at = select.text(5);
      session.closed_ns = optional_integer(6);
      session.steps = select.integer(7);
      session.scalars = select.integer(8);
      session.events = select.integer(9);
      session.writers = select.integer(10);
      session.first_ns = optional_integer(11);
      session.last_ns = optional_integer(12);
      session.episodes = select.integer(13);
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
    ScoreScan scan(std::move(finder), EpisodeNumbers(state_->episode_names(session)), filter,
                   Schema::Kind::tree, state_->path);
    if (!filter.episode && !filter.start && !filter.stop) {
      std::int64_t steps = 0;
      for (const WriterRow& writer : writers) steps += writer.steps;
      scan.reserve(static_cast<std::size_t>(steps));
    }
    Statement select = state_->select_steps();
    for (const KeyRange& range : state_->ranges(writers, filter)) {
      const std::int32_t rank = writers[range.writer].info.rank;
      state_->scan(select, range, kHighest,
                   [&](std::int64_t, std::int64_t schema_key, std::span<const std::byte> record) {
                     scan.add(schema_key, record, range.writer, rank);
                   });
    }
    return scan.take();
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
    EpisodeNumbers episodes(state_->episode_names(session));
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
  return state_->read([&] {
    const ReadTransaction transaction(state_->database);
    state_->require_session(session);
    const std::vector<SchemaRow> schemas = state_->schemas(session, "tree");
    Statement extent(state_->database,
                     "SELECT min(first_step), max(last_step) FROM extents WHERE session_id = ?1 "
                     "AND (?2 IS NULL OR episode_id IS NULL OR episode_id = ?2)");
    extent.bind(1, session);
    if (filter.episode) extent.bind(2, *filter.episode);
    std::int64_t low = 0;
    std::int64_t high = -1;
    if (extent.step() && !extent.is_null(0)) {
      low = std::max(extent.integer(0), filter.start.value_or(kLowest));
      high = filter.stop ? std::min(extent.integer(1), *filter.stop - 1) : extent.integer(1);
    }
    SummaryScan scan(schemas, bins, low, high, filter, state_->path);
    Statement select = state_->select_steps();
    for (const KeyRange& range : state_->ranges(state_->writers(session), filter)) {
      state_->scan(select, range, kHighest,
                   [&](std::int64_t, std::int64_t schema_key, std::span<const std::byte> record) {
                     scan.add(schema_key, record);
                   });
    }
    return scan.take();
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
    ScoreScan scan(std::move(finder), EpisodeNumbers(state_->episode_names(session)), filter,
                   Schema::Kind::scalars, state_->path);
    const std::vector<WriterRow> writers = state_->writers(session);
    FilmFilter all_steps;  // the extents are of snapshots: they say nothing about scalars
    all_steps.writer = filter.writer;
    for (const KeyRange& range : state_->ranges(writers, all_steps)) {
      const std::int32_t rank = writers[range.writer].info.rank;
      state_->scan(select, range, kHighest,
                   [&](std::int64_t, std::int64_t schema_key, std::span<const std::byte> record) {
                     scan.add(schema_key, record, range.writer, rank);
                   });
    }
    return scan.take();
  });
}

// ---- Cursor ----

struct FilmReader::Cursor::Plan {
  std::shared_ptr<State> state;
  FilmFilter filter;
  EventFilter events;  // what `select` borrows its bound texts from, and
  std::string token;
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

std::optional<FilmRecord> FilmReader::Cursor::next() {
  if (plan_->ready.empty()) plan_->fill();
  if (plan_->ready.empty()) return std::nullopt;
  auto [record, writer] = std::move(plan_->ready.front());
  plan_->ready.pop_front();
  return FilmRecord{std::move(record), &plan_->session, &plan_->writers[writer].info};
}

FilmReader::Cursor FilmReader::events(std::int64_t session, const EventFilter& filter) const {
  auto plan = std::make_unique<Cursor::Plan>();
  plan->state = state_;
  plan->events = filter;
  state_->read([&] {
    const ReadTransaction transaction(state_->database);
    plan->session = state_->session_info(session);
    plan->writers = state_->writers(session);
    FilmFilter all_steps;  // the extents say nothing about events
    all_steps.writer = filter.writer;
    plan->ranges = state_->ranges(plan->writers, all_steps);
    plan->select =
        Statement(state_->database,
                  "SELECT event_key, schema_key, record FROM events WHERE event_key BETWEEN ?1 AND "
                  "?2 AND (?3 IS NULL OR kind = ?3) AND (?4 IS NULL OR name IN (?4, ?7)) AND step_index "
                  ">= ?5 AND (?6 IS NULL OR step_index < ?6) ORDER BY event_key",
                  true);
    if (plan->events.kind) plan->select.bind(3, *plan->events.kind);
    if (plan->events.name) {
      plan->token = state_->unsealer.token(*plan->events.name);
      plan->select.bind(4, *plan->events.name).bind(7, plan->token);
    }
    plan->select.bind(5, filter.start.value_or(kLowest));
    if (filter.stop) plan->select.bind(6, *filter.stop);
  });
  return Cursor(std::move(plan));
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
