#include "rubriscope/vault/vault.h"

#include <openssl/rand.h>

#include <algorithm>
#include <utility>

#include "rubriscope/core/base64.h"
#include "rubriscope/core/errors.h"
#include "rubriscope/vault/aead.h"

namespace rubriscope::vault {

namespace {

// version | id of the key | nonce | ciphertext and tag
constexpr char kVersion = 1;
constexpr std::size_t kIdBytes = 8;
constexpr std::size_t kNonceAt = 1 + kIdBytes;
constexpr std::size_t kSealedAt = kNonceAt + sizeof(Nonce);
constexpr std::size_t kWrappedBytes = kSealedAt + Secret::kBytes + kTagBytes;

void require_wrapped(std::string_view wrapped) {
  if (wrapped.size() != kWrappedBytes || wrapped[0] != kVersion) {
    throw FormatError("a wrapped key is " + std::to_string(kWrappedBytes) + " bytes of version 1, got " +
                      std::to_string(wrapped.size()) + " bytes");
  }
}

std::string id_of(const Secret& secret) {
  const auto code = hmac(secret, "rubriscope key id");
  return to_hex(std::span(code).first(kIdBytes));
}

std::string additional_data(std::string_view head, std::string_view purpose) {
  return std::string(head) + std::string(purpose);
}

}  // namespace

Kek::Kek(Secret secret) : secret_(std::move(secret)), id_(id_of(secret_)) {}

std::string Kek::wrap(const Secret& secret, std::string_view purpose) const {
  std::string wrapped(kWrappedBytes, kVersion);
  const auto code = hmac(secret_, "rubriscope key id");
  std::copy_n(code.begin(), kIdBytes, wrapped.begin() + 1);
  Nonce nonce;
  if (RAND_bytes(nonce.data(), static_cast<int>(nonce.size())) != 1) {
    throw Error("OpenSSL has no random bytes for a nonce");
  }
  std::copy(nonce.begin(), nonce.end(), wrapped.begin() + kNonceAt);
  const std::string additional = additional_data(std::string_view(wrapped).substr(0, kNonceAt), purpose);
  if (!Aead(secret_).seal(nonce, as_octets(additional), secret.bytes(),
                          reinterpret_cast<std::uint8_t*>(wrapped.data()) + kSealedAt)) {
    throw Error("OpenSSL cannot wrap a key");
  }
  return wrapped;
}

Secret Kek::unwrap(std::string_view wrapped, std::string_view purpose) const {
  if (const std::string by = wrapped_by(wrapped); by != id_) {
    throw SealedError("it was encrypted with the key " + by + ", and the key given is " + id_);
  }
  Nonce nonce;
  std::copy_n(wrapped.begin() + kNonceAt, nonce.size(), nonce.begin());
  const std::string additional = additional_data(wrapped.substr(0, kNonceAt), purpose);
  std::array<std::uint8_t, Secret::kBytes> plain{};
  if (!Aead(secret_).open(nonce, as_octets(additional), as_octets(wrapped.substr(kSealedAt)), plain.data())) {
    throw SealedError("its wrapped key was changed, or belongs elsewhere");
  }
  Secret secret{std::span<const std::uint8_t, Secret::kBytes>(plain)};
  std::fill(plain.begin(), plain.end(), std::uint8_t{0});
  return secret;
}

std::string Kek::wrapped_by(std::string_view wrapped) {
  require_wrapped(wrapped);
  return to_hex(as_octets(wrapped.substr(1, kIdBytes)));
}

std::string data_key_purpose(std::string_view session_id, std::string_view writer_id) {
  return "rubriscope data key of " + std::string(session_id) + "/" + std::string(writer_id);
}

Vault::Vault(const Kek& kek)
    : kek_(kek),
      search_key_(Secret::random()),
      wrapped_search_key_(kek.wrap(search_key_, kSearchKeyPurpose)) {}

Vault::Vault(const Kek& kek, std::string_view wrapped_search_key)
    : kek_(kek),
      search_key_(kek.unwrap(wrapped_search_key, kSearchKeyPurpose)),
      wrapped_search_key_(wrapped_search_key) {}

std::string Vault::token(std::string_view path) const {
  const auto code = hmac(search_key_, path);
  return to_hex(std::span(code).first(16));
}

}  // namespace rubriscope::vault
