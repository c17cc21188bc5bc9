#include "rubriscope/sinks/sqlite/format.h"

#include <sys/stat.h>

#include <array>
#include <cstring>

namespace rubriscope::sqlite {

const char* const kCreateSql = R"sql(
PRAGMA application_id = 0x52534350;
PRAGMA user_version = 3;
CREATE TABLE sessions(
  session_id INTEGER PRIMARY KEY,
  uuid TEXT NOT NULL UNIQUE,
  name TEXT NOT NULL,
  created_at TEXT NOT NULL,
  created_ns INTEGER NOT NULL,
  closed_ns INTEGER,
  metadata TEXT NOT NULL);
CREATE TABLE writers(
  writer_key INTEGER PRIMARY KEY,
  session_id INTEGER NOT NULL REFERENCES sessions,
  writer_id TEXT NOT NULL UNIQUE,
  rank INTEGER NOT NULL,
  world_size INTEGER NOT NULL,
  host TEXT NOT NULL,
  pid INTEGER NOT NULL,
  started_ns INTEGER NOT NULL,
  closed_ns INTEGER);
CREATE TABLE schemas(
  schema_key INTEGER PRIMARY KEY,
  session_id INTEGER NOT NULL REFERENCES sessions,
  kind TEXT NOT NULL,
  definition TEXT NOT NULL,
  UNIQUE(session_id, definition));
CREATE TABLE rubrics(
  schema_key INTEGER NOT NULL REFERENCES schemas,
  rubric_path TEXT NOT NULL,
  slot INTEGER NOT NULL,
  jp TEXT NOT NULL,
  class_name TEXT NOT NULL,
  PRIMARY KEY(schema_key, rubric_path)) WITHOUT ROWID;
CREATE TABLE episodes(
  session_id INTEGER NOT NULL REFERENCES sessions,
  episode_id TEXT NOT NULL,
  started_ns INTEGER NOT NULL,
  PRIMARY KEY(session_id, episode_id)) WITHOUT ROWID;
CREATE TABLE steps(
  step_key INTEGER PRIMARY KEY,
  session_id INTEGER NOT NULL REFERENCES sessions,
  episode_id TEXT,
  step_index INTEGER NOT NULL,
  time_ns INTEGER NOT NULL,
  reward REAL,
  action,
  observation,
  metadata TEXT,
  group_id INTEGER,
  sample_index INTEGER,
  schema_key INTEGER NOT NULL REFERENCES schemas,
  scores TEXT NOT NULL,
  statuses TEXT,
  record BLOB NOT NULL);
CREATE TABLE extents(
  first_key INTEGER PRIMARY KEY,
  last_key INTEGER NOT NULL,
  session_id INTEGER NOT NULL REFERENCES sessions,
  steps INTEGER NOT NULL,
  scalars INTEGER NOT NULL,
  events INTEGER NOT NULL,
  first_ns INTEGER NOT NULL,
  last_ns INTEGER NOT NULL,
  episode_id TEXT,
  first_step INTEGER,
  last_step INTEGER);
CREATE TABLE scalars(
  scalar_key INTEGER PRIMARY KEY,
  session_id INTEGER NOT NULL REFERENCES sessions,
  step_index INTEGER NOT NULL,
  time_ns INTEGER NOT NULL,
  schema_key INTEGER NOT NULL REFERENCES schemas,
  "values" TEXT NOT NULL,
  record BLOB NOT NULL);
CREATE TABLE events(
  event_key INTEGER PRIMARY KEY,
  session_id INTEGER NOT NULL REFERENCES sessions,
  kind TEXT NOT NULL,
  name TEXT NOT NULL,
  episode_id TEXT,
  step_index INTEGER NOT NULL,
  time_ns INTEGER NOT NULL,
  duration_ns INTEGER NOT NULL,
  outcome TEXT NOT NULL,
  trace_id TEXT,
  parent_id TEXT,
  schema_key INTEGER NOT NULL REFERENCES schemas,
  "values" TEXT NOT NULL,
  fields TEXT NOT NULL,
  metadata TEXT,
  record BLOB NOT NULL);
CREATE TABLE ledgers(
  writer_key INTEGER PRIMARY KEY REFERENCES writers,
  size INTEGER NOT NULL,
  checkpoint TEXT);
CREATE TABLE ledger_tiles(
  tile_key INTEGER PRIMARY KEY,
  hashes BLOB NOT NULL);
CREATE TABLE ledger_entries(
  entry_key INTEGER PRIMARY KEY,
  entry BLOB NOT NULL);
CREATE TABLE vault(
  id INTEGER PRIMARY KEY CHECK(id = 1),
  search_key BLOB NOT NULL);
CREATE TABLE vault_keys(
  writer_key INTEGER PRIMARY KEY REFERENCES writers,
  wrapped_key BLOB NOT NULL);
CREATE VIEW trajectory AS
  SELECT s.session_id AS session_id, s.episode_id AS episode_id, s.step_index AS step_index,
         r.rubric_path AS rubric_path, json_extract(s.scores, r.jp) AS score,
         CASE coalesce(substr(s.statuses, r.slot + 1, 1), 's')
           WHEN 's' THEN 'scored' WHEN 'k' THEN 'skipped' WHEN 'f' THEN 'failed' END AS status,
         w.rank AS rank, s.step_key & 0xFFFFFFFFFF AS sequence, s.group_id AS group_id,
         s.sample_index AS sample_index
  FROM steps s CROSS JOIN rubrics r ON r.schema_key = s.schema_key
  CROSS JOIN writers w ON w.writer_key = s.step_key >> 40;
CREATE VIEW scalar_values AS
  SELECT s.session_id AS session_id, s.step_index AS step_index, r.rubric_path AS name,
         json_extract(s."values", r.jp) AS value, s.time_ns AS time_ns, w.rank AS rank,
         s.scalar_key & 0xFFFFFFFFFF AS sequence
  FROM scalars s CROSS JOIN rubrics r ON r.schema_key = s.schema_key
  CROSS JOIN writers w ON w.writer_key = s.scalar_key >> 40;
CREATE VIEW event_values AS
  SELECT e.session_id AS session_id, e.kind AS kind, e.name AS event, r.rubric_path AS name,
         json_extract(e."values", r.jp) AS value, e.step_index AS step_index, e.time_ns AS time_ns,
         e.trace_id AS trace_id, w.rank AS rank, e.event_key & 0xFFFFFFFFFF AS sequence
  FROM events e CROSS JOIN rubrics r ON r.schema_key = e.schema_key
  CROSS JOIN writers w ON w.writer_key = e.event_key >> 40;
)sql";

namespace {

std::uint32_t big_endian_32(const unsigned char* at) {
  return std::uint32_t{at[0]} << 24 | std::uint32_t{at[1]} << 16 | std::uint32_t{at[2]} << 8 | at[3];
}

FileState judge(std::int64_t application_id, std::int64_t version, bool has_tables, const std::string& path) {
  if (application_id == kApplicationId) {
    if (version < kFormatVersion) {
      throw FormatError(path + " has format version " + std::to_string(version) +
                        " of an older rubriscope; this one knows version " + std::to_string(kFormatVersion) +
                        ". The file was left as it is; name another target");
    }
    if (version > kFormatVersion) {
      throw FormatError(path + " has format version " + std::to_string(version) +
                        ", written by a newer rubriscope; this one knows version " +
                        std::to_string(kFormatVersion) + ". The file was left as it is");
    }
    return FileState::ours;
  }
  if (application_id != 0 || version != 0 || has_tables) {
    throw FormatError(path + " is an SQLite database of another program (application_id " +
                      std::to_string(application_id) + ", expected " + std::to_string(kApplicationId) +
                      "). The file was left as it is; name another target");
  }
  return FileState::absent;
}

}  // namespace

bool replace_checkpoint(const std::string& path, const std::string& writer_id, const std::string& old_note,
                        const std::string& new_note) {
  if (inspect_file(path) != FileState::ours) throw FormatError(path + " holds no recording");
  Database database(path, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, 5000);
  Statement(database,
            "UPDATE ledgers SET checkpoint = ?3 WHERE checkpoint = ?2 AND "
            "writer_key = (SELECT writer_key FROM writers WHERE writer_id = ?1)")
      .bind(1, writer_id)
      .bind(2, old_note)
      .bind(3, new_note)
      .run();
  return sqlite3_changes(database.handle()) == 1;
}

FileState inspect_file(const std::string& path) {
  struct stat info{};
  if (stat(path.c_str(), &info) != 0) {
    if (errno == ENOENT) return FileState::absent;
    throw DatabaseError(SQLITE_CANTOPEN, path + ": " + std::strerror(errno));
  }
  if (!S_ISREG(info.st_mode)) throw DatabaseError(SQLITE_CANTOPEN, path + " is not a regular file");
  if (info.st_size == 0) return FileState::absent;

  // Through SQLite's own file handle: a plain open() and close() here would drop the locks of every other
  // connection that this process has on the file (POSIX locks belong to the process, not to a descriptor).
  Database database(path, SQLITE_OPEN_READONLY | SQLITE_OPEN_NOMUTEX, 0);
  sqlite3_file* file = nullptr;
  sqlite3_file_control(database.handle(), "main", SQLITE_FCNTL_FILE_POINTER, &file);
  std::array<unsigned char, 112> header{};
  if (file == nullptr || file->pMethods == nullptr) {
    throw DatabaseError(SQLITE_CANTOPEN, path + " cannot be read");
  }
  const int result = file->pMethods->xRead(file, header.data(), header.size(), 0);
  if (result != SQLITE_OK && result != SQLITE_IOERR_SHORT_READ) {
    throw DatabaseError(result, path + " cannot be read: " + sqlite3_errstr(result));
  }
  if (std::memcmp(header.data(), "SQLite format 3", 16) != 0) {
    throw FormatError(path + " is not an SQLite database. The file was left as it is; name another target");
  }
  // Bytes 60 and 68 are user_version and application_id; page 1 holds the table of tables, its cell count is
  // at byte 103.
  return judge(static_cast<std::int32_t>(big_endian_32(&header[68])),
               static_cast<std::int32_t>(big_endian_32(&header[60])), header[103] != 0 || header[104] != 0,
               path);
}

FileState inspect_database(Database& database, const std::string& path) {
  return judge(database.integer("PRAGMA application_id"), database.integer("PRAGMA user_version"),
               database.integer("SELECT count(*) FROM sqlite_master") != 0, path);
}

}  // namespace rubriscope::sqlite
