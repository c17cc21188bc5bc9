// AES-256-GCM (NIST SP 800-38D) by OpenSSL, with 96-bit nonces and 128-bit tags.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>

#include "rubriscope/vault/secret.h"

namespace rubriscope::vault {

using Nonce = std::array<std::uint8_t, 12>;
using Octets = std::span<const std::uint8_t>;

inline constexpr std::size_t kTagBytes = 16;

/// One key, set up once. Not for several threads at once.
class Aead {
 public:
  /// Throws Error when OpenSSL lacks the cipher.
  explicit Aead(const Secret& key);

  /// Writes the ciphertext and the tag: plain.size() + kTagBytes bytes. False when OpenSSL refuses.
  bool seal(const Nonce& nonce, Octets additional, Octets plain, std::uint8_t* out) noexcept;
  /// Writes sealed.size() - kTagBytes bytes. False, with nothing of the plaintext in `out`, when anything was
  /// changed.
  bool open(const Nonce& nonce, Octets additional, Octets sealed, std::uint8_t* out) noexcept;

 private:
  struct Free {
    void operator()(void* context) const;
  };

  std::unique_ptr<void, Free> sealing_;
  std::unique_ptr<void, Free> opening_;
};

}  // namespace rubriscope::vault
