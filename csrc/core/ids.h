// Who wrote a record: the session (a named run) and the writer (one process's stream of records).
#pragma once

#include <cstdint>
#include <string>

namespace rubriscope {

/// A random (version 4) UUID in its 36-character text form.
std::string make_uuid();

/// A named run.
struct SessionInfo {
  std::string id;             ///< UUID; names may repeat, ids do not
  std::string name;           ///< what the user called the run
  std::int64_t created_ns{};  ///< wall clock, ns since the Unix epoch
  std::string metadata_json;  ///< a JSON object, "{}" when empty
  bool ledger{true};          ///< whether stores keep a Merkle tree over its records
};

/// One process's stream of records; (writer id, sequence) identifies a record.
struct WriterInfo {
  std::string id;  ///< UUID
  std::int32_t rank{};
  std::int32_t world_size{1};
  std::string host;
  std::int64_t pid{};
  std::int64_t started_ns{};  ///< wall clock, ns since the Unix epoch
  std::string wrapped_key{};  ///< of an encrypted stream: its data key, encrypted (vault/vault.h)
};

}  // namespace rubriscope
