// Opens what is encrypted in a recording, whoever reads its rows.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "rubriscope/core/cbor.h"
#include "rubriscope/core/schema.h"
#include "rubriscope/vault/sealer.h"
#include "rubriscope/vault/vault.h"

namespace rubriscope::film {

/// A writer's wrapped data key; nothing where it was shredded.
struct DataKey {
  std::string session_id;
  std::optional<std::string> wrapped;
};

/// Not for several threads at once.
class Unsealer {
 public:
  /// `key_of` finds a writer's key by its UUID; `where` is named in errors.
  Unsealer(std::string where, std::function<DataKey(const std::string& writer_id)> key_of)
      : where_(std::move(where)), key_of_(std::move(key_of)) {}

  /// Throws SealedError when `kek` is not the one that wrapped the search key. Where there is none, nothing
  /// is encrypted, and no key is needed.
  void unlock(const vault::Kek& kek, const std::optional<std::string>& wrapped_search_key);

  /// The schema as it was defined. Throws SealedError.
  SchemaPtr schema(const Schema& stored);

  /// What stands for a name in the columns that can be searched; the name itself without a key.
  std::string token(const std::string& name) const { return vault_ != nullptr ? vault_->token(name) : name; }

  /// The canonical bytes that the record would have unsealed; borrowed until the next call. Throws
  /// SealedError.
  std::span<const std::byte> record(std::span<const std::byte> sealed);

  /// A session's metadata, or {"encrypted":true} where it cannot be opened.
  std::string metadata(const std::string& stored);

 private:
  vault::Opener& opener(const std::string& writer_id);

  const std::string where_;
  const std::function<DataKey(const std::string&)> key_of_;
  vault::VaultPtr vault_;
  std::unordered_map<std::string, std::unique_ptr<vault::Opener>> openers_;
  std::vector<std::byte> bytes_;
};

}  // namespace rubriscope::film
