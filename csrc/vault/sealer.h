// What one writer encrypts, and how it is opened again. Every writer has a random data key of its own; its
// nonces are counters that the journal gives out once (a record's sequence, a schema's number), so that none
// repeats under one key: another process and a forked child are other writers, and recovery encrypts nothing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "rubriscope/core/cbor.h"
#include "rubriscope/core/ids.h"
#include "rubriscope/core/record.h"
#include "rubriscope/core/schema.h"
#include "rubriscope/vault/aead.h"
#include "rubriscope/vault/vault.h"

namespace rubriscope::vault {

class Sealer {
 public:
  /// Makes the writer's data key. Throws Error.
  Sealer(VaultPtr vault, const SessionInfo& session, const WriterInfo& writer);

  /// The data key as it is stored.
  const std::string& wrapped_key() const { return wrapped_key_; }

  /// Stands for `plain` where anybody can read: tokens for names, and the definition sealed. Throws Error.
  Schema seal(const Schema& plain) const;

  /// Stands for a session's metadata: {"sealed":"…"}. Throws Error.
  std::string seal_metadata(std::string_view json) const;

  /// Bytes that a record of `plain_bytes` takes once it is sealed.
  static constexpr std::size_t sealed_bytes(std::size_t plain_bytes) {
    return plain_bytes + sizeof(ExtraHeader) + kBodyBytes + padded(kTagBytes);
  }

  /// Memory of this thread in which a record is filled, so that nothing of it is ever in the mapped file. The
  /// header has what `reserved` says.
  static RecordHeader* scratch_for(RecordHeader* reserved, std::size_t plain_bytes) noexcept;

  /// Seals what was filled into scratch_for()'s memory into the reserved record, which is returned.
  RecordHeader* seal(RecordHeader* filled) const noexcept;

  /// What is encrypted of a header: its last bytes, which say how the rest is to be read.
  static constexpr std::size_t kBodyBytes = 16;

 private:
  const VaultPtr vault_;
  const std::string writer_id_;
  const UuidBytes session_;
  const UuidBytes writer_;
  const Secret data_key_;
  const std::string wrapped_key_;
  const std::uint64_t number_;  // of this object, for the threads' caches
};

/// Opens what one writer sealed. Not for several threads at once.
class Opener {
 public:
  /// Throws SealedError when `vault`'s key is not the one that wrapped the data key.
  Opener(const Vault& vault, std::string_view wrapped_key, std::string_view session_id,
         std::string_view writer_id);

  /// The record as it was before it was sealed, without its schema. Throws SealedError.
  DecodedRecord open(const RecordView& sealed);

  /// The schema behind the tokens. Throws SealedError.
  Schema open(const Schema& sealed);

  /// A session's metadata. Throws SealedError.
  std::string open_metadata(std::string_view sealed_json);

 private:
  std::string open_text(std::uint32_t domain, std::uint64_t counter, std::string_view base64,
                        const char* what);

  const std::string session_id_;
  const std::string writer_id_;
  const UuidBytes session_;
  const UuidBytes writer_;
  Aead aead_;
};

/// The writer who sealed a schema, or a session's metadata; "" where nothing is sealed.
std::string sealed_by(const Schema& schema);
std::string metadata_sealed_by(std::string_view metadata_json);

}  // namespace rubriscope::vault
