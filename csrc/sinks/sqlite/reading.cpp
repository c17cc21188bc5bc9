#include "rubriscope/sinks/sqlite/reading.h"

#include <sys/stat.h>

#include <cerrno>

#include "rubriscope/sinks/sqlite/format.h"

namespace rubriscope::sqlite {

namespace {

constexpr int kBusyTimeoutMs = 5000;

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

}  // namespace

void rethrow(const DatabaseError& error, const std::string& path) {
  switch (error.primary()) {
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      throw FormatError(path + " is damaged: " + error.what());
    case SQLITE_ERROR:
      throw FormatError(path + " does not hold the tables of format version " +
                        std::to_string(kFormatVersion) + ": " + error.what());
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
  if (inspect_file(path) == FileState::absent) {
    throw SystemError(ENOENT, "Opening a film", path);
  }
  // A connection that may write, kept from it: SQLite's read-only ones leave the log's files lying beside the
  // database, where the last other one to close tidies up. Without the right to write it is read-only anyway.
  Database database(path, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, kBusyTimeoutMs);
  try {
    database.execute("PRAGMA query_only = ON");
    inspect_database(database, path);
  } catch (const DatabaseError& error) {
    // In a folder that cannot be written the log's index cannot be made. Where there is no log either, the
    // file is complete and nobody writes it.
    const bool no_room_for_index = error.primary() == SQLITE_CANTOPEN || error.primary() == SQLITE_READONLY;
    if (!no_room_for_index || !is_missing_or_empty(path + "-wal")) throw;
    database =
        Database(as_uri(path), SQLITE_OPEN_READONLY | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_URI, kBusyTimeoutMs);
    inspect_database(database, path);
  }
  return database;
}

}  // namespace rubriscope::sqlite
