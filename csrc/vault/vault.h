// A database's keys. The key-encryption key (KEK) is the user's and wraps the others, which are random: a
// data key a writer (sealer.h) and the search key, by which paths become tokens.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "rubriscope/vault/secret.h"

namespace rubriscope::vault {

/// The user's key.
class Kek {
 public:
  explicit Kek(Secret secret);

  /// Tells keys apart without giving one away: 16 hex digits of an HMAC.
  const std::string& id() const { return id_; }

  /// `secret`, sealed, with this key's id; `purpose` is bound to it. Throws Error.
  std::string wrap(const Secret& secret, std::string_view purpose) const;
  /// The inverse. Throws SealedError when it was wrapped by another key, for another purpose, or changed.
  Secret unwrap(std::string_view wrapped, std::string_view purpose) const;

  /// The id of the key that wrapped these bytes. Throws FormatError when they are no wrapped key.
  static std::string wrapped_by(std::string_view wrapped);

 private:
  Secret secret_;
  std::string id_;
};

/// What a wrapped key is for: the data key of a writer in a session, the search key of a database.
std::string data_key_purpose(std::string_view session_id, std::string_view writer_id);
inline constexpr std::string_view kSearchKeyPurpose = "rubriscope search key";

/// The keys with which a database is written and read.
class Vault {
 public:
  /// A database's first: with a new search key.
  explicit Vault(const Kek& kek);
  /// Throws SealedError when `kek` is not the one that wrapped the search key.
  Vault(const Kek& kek, std::string_view wrapped_search_key);

  const Kek& kek() const { return kek_; }
  const std::string& wrapped_search_key() const { return wrapped_search_key_; }

  /// Stands for a path, the same in every session of the database: 32 hex digits of its HMAC-SHA256.
  std::string token(std::string_view path) const;

 private:
  Kek kek_;
  Secret search_key_;
  std::string wrapped_search_key_;
};

using VaultPtr = std::shared_ptr<Vault>;  // of a class without a method that changes it

}  // namespace rubriscope::vault
