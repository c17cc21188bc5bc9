// Ed25519 (RFC 8032) keys that sign a ledger's checkpoints.
#pragma once

#include <array>
#include <cstdint>
#include <memory>

#include "rubriscope/ledger/hash.h"

namespace rubriscope::ledger {

using PublicKey = std::array<std::uint8_t, 32>;
using Seed = std::array<std::uint8_t, 32>;
using Signature = std::array<std::uint8_t, 64>;

class SigningKey {
 public:
  /// A new random key. Throws Error when OpenSSL has no randomness.
  static SigningKey generate();
  /// The key of RFC 8032's 32-byte private key. Throws ValueError when OpenSSL refuses it.
  explicit SigningKey(const Seed& seed);

  Signature sign(Bytes message) const;
  const Seed& seed() const { return seed_; }
  const PublicKey& public_key() const { return public_; }

 private:
  struct Free {
    void operator()(void* key) const;
  };

  Seed seed_;
  PublicKey public_{};
  std::unique_ptr<void, Free> key_;
};

bool verify_signature(const PublicKey& key, Bytes message, const Signature& signature);

}  // namespace rubriscope::ledger
