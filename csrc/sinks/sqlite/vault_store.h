// A database's wrapped keys: reading them, putting others in their place, and destroying them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "rubriscope/sinks/sqlite/database.h"
#include "rubriscope/vault/vault.h"

namespace rubriscope::sqlite {

/// The search key as it is stored, or nothing. Throws DatabaseError.
std::optional<std::string> stored_search_key(Database& database);
void store_search_key(Database& database, const std::string& wrapped);

/// A writer's data key as it is stored, or nothing: it is not encrypted, or was shredded.
struct WriterKey {
  std::string session_id;
  std::string writer_id;
  std::optional<std::string> wrapped;
};
WriterKey stored_data_key(Database& database, std::int64_t writer_key);

struct Rotation {
  std::int64_t rewrapped{};
  std::int64_t already{};  ///< were wrapped by the new key before
};

/// Wraps every key of the database by `now` that is wrapped by `before`; no record is written. One
/// transaction: whenever it is interrupted, all keys are wrapped as they were, or all by the new one. Throws
/// SealedError, with nothing changed, when a key is wrapped by neither; FormatError, SystemError.
Rotation rotate(const std::string& path, const vault::Kek& before, const vault::Kek& now);

/// Destroys the data keys of a session: nobody can read its records any more. Their bytes are overwritten in
/// the file, its log is emptied and the file is made anew. Returns how many there were. Throws KeyError for
/// an unknown session, ValueError for one that is being recorded, SystemError, FormatError.
std::int64_t shred(const std::string& path, const std::string& session_uuid);

}  // namespace rubriscope::sqlite
