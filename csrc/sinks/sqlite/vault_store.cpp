#include "rubriscope/sinks/sqlite/vault_store.h"

#include <span>
#include <utility>
#include <vector>

#include "rubriscope/core/errors.h"
#include "rubriscope/recorder/fault_point.h"
#include "rubriscope/sinks/sqlite/format.h"
#include "rubriscope/sinks/sqlite/reading.h"

namespace rubriscope::sqlite {

namespace {

constexpr int kBusyTimeoutMs = 5000;

std::string bytes_of(std::span<const std::byte> blob) {
  return {reinterpret_cast<const char*>(blob.data()), blob.size()};
}

std::span<const std::byte> blob_of(const std::string& bytes) { return std::as_bytes(std::span(bytes)); }

Database open_ours(const std::string& path) {
  if (inspect_file(path) != FileState::ours) throw FormatError(path + " holds no recording");
  return {path, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, kBusyTimeoutMs};
}

}  // namespace

std::optional<std::string> stored_search_key(Database& database) {
  Statement find(database, "SELECT search_key FROM vault WHERE id = 1");
  return find.step() ? std::optional(bytes_of(find.blob(0))) : std::nullopt;
}

void store_search_key(Database& database, const std::string& wrapped) {
  Statement(database, "INSERT INTO vault VALUES(1, ?1) ON CONFLICT(id) DO UPDATE SET search_key = ?1")
      .bind_blob(1, blob_of(wrapped))
      .run();
}

WriterKey stored_data_key(Database& database, std::int64_t writer_key) {
  Statement find(database,
                 "SELECT s.uuid, w.writer_id, k.wrapped_key FROM writers w JOIN sessions s USING(session_id) "
                 "LEFT JOIN vault_keys k USING(writer_key) WHERE w.writer_key = ?1");
  WriterKey key;
  if (!find.bind(1, writer_key).step()) return key;
  key.session_id = find.text(0);
  key.writer_id = find.text(1);
  if (!find.is_null(2)) key.wrapped = bytes_of(find.blob(2));
  return key;
}

Rotation rotate(const std::string& path, const vault::Kek& before, const vault::Kek& now) {
  try {
    Database database = open_ours(path);
    Transaction transaction(database);
    Rotation rotation;
    const auto rewrap = [&](const std::string& wrapped,
                            const std::string& purpose) -> std::optional<std::string> {
      if (vault::Kek::wrapped_by(wrapped) == now.id()) {
        ++rotation.already;
        return std::nullopt;
      }
      ++rotation.rewrapped;
      return now.wrap(before.unwrap(wrapped, purpose), purpose);
    };
    const std::optional<std::string> search = stored_search_key(database);
    if (!search) throw FormatError(path + " is not encrypted: it has no keys to rotate");
    if (const auto rewrapped = rewrap(*search, std::string(vault::kSearchKeyPurpose))) {
      store_search_key(database, *rewrapped);
    }
    std::vector<std::int64_t> writers;
    Statement select(database, "SELECT writer_key FROM vault_keys ORDER BY writer_key");
    while (select.step()) writers.push_back(select.integer(0));
    Statement update(database, "UPDATE vault_keys SET wrapped_key = ?2 WHERE writer_key = ?1");
    for (const std::int64_t writer : writers) {
      const WriterKey key = stored_data_key(database, writer);
      const auto rewrapped = rewrap(*key.wrapped, vault::data_key_purpose(key.session_id, key.writer_id));
      if (!rewrapped) continue;
      update.bind(1, writer).bind_blob(2, blob_of(*rewrapped)).run();
      RUBRISCOPE_FAULT_POINT("rotate.rewrapped");
    }
    RUBRISCOPE_FAULT_POINT("rotate.before_commit");
    transaction.commit();
    RUBRISCOPE_FAULT_POINT("rotate.committed");
    return rotation;
  } catch (const DatabaseError& error) {
    rethrow(error, path);
  } catch (const SealedError& error) {
    throw SealedError(path + ": " + error.what());
  }
}

std::int64_t shred(const std::string& path, const std::string& session_uuid) {
  try {
    Database database = open_ours(path);
    Statement find(database, "SELECT session_id FROM sessions WHERE uuid = ?1");
    if (!find.bind(1, session_uuid).step()) {
      throw KeyError(path + " has no session with the UUID " + session_uuid);
    }
    const std::int64_t session = find.integer(0);
    find.reset();
    Statement open(database, "SELECT count(*) FROM writers WHERE session_id = ?1 AND closed_ns IS NULL");
    open.bind(1, session).step();
    if (open.integer(0) != 0) {
      throw ValueError("session " + session_uuid +
                       " has writers that are recording, or died and were not recovered");
    }
    open.reset();
    database.execute("PRAGMA secure_delete = ON");
    Transaction transaction(database);
    Statement(
        database,
        "DELETE FROM vault_keys WHERE writer_key IN (SELECT writer_key FROM writers WHERE session_id = ?1)")
        .bind(1, session)
        .run();
    const std::int64_t destroyed = sqlite3_changes(database.handle());
    transaction.commit();
    // Copies that moved with their page's other rows lie in free space, and older pages in the log.
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)");
    database.execute("VACUUM");
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)");
    return destroyed;
  } catch (const DatabaseError& error) {
    rethrow(error, path);
  }
}

}  // namespace rubriscope::sqlite
