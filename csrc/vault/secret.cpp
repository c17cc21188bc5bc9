#include "rubriscope/vault/secret.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>

#include <algorithm>

#include "rubriscope/core/errors.h"

namespace rubriscope::vault {

namespace {

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

}  // namespace

Secret Secret::random() {
  Secret secret;
  if (RAND_priv_bytes(secret.bytes_.data(), static_cast<int>(kBytes)) != 1) {
    throw Error("OpenSSL has no random bytes for a key");
  }
  return secret;
}

Secret Secret::parse(std::string_view text) {
  Secret secret;
  if (text.size() == kBytes) {
    std::copy(text.begin(), text.end(), secret.bytes_.begin());
    return secret;
  }
  std::string_view digits = text;
  while (!digits.empty() && (digits.back() == '\n' || digits.back() == '\r')) digits.remove_suffix(1);
  if (digits.size() != 2 * kBytes ||
      std::any_of(digits.begin(), digits.end(), [](char c) { return hex_digit(c) < 0; })) {
    throw ValueError("a key is 32 raw bytes or 64 hex digits, got " + std::to_string(text.size()) +
                     " bytes that are neither");
  }
  for (std::size_t i = 0; i < kBytes; ++i) {
    secret.bytes_[i] =
        static_cast<std::uint8_t>(hex_digit(digits[2 * i]) << 4 | hex_digit(digits[2 * i + 1]));
  }
  return secret;
}

Secret::Secret(std::span<const std::uint8_t, kBytes> bytes) {
  std::copy(bytes.begin(), bytes.end(), bytes_.begin());
}

Secret::~Secret() { OPENSSL_cleanse(bytes_.data(), bytes_.size()); }

std::array<std::uint8_t, 32> hmac(const Secret& key, std::string_view message) {
  std::array<std::uint8_t, 32> code{};
  unsigned int size = 0;
  if (HMAC(EVP_sha256(), key.bytes().data(), static_cast<int>(Secret::kBytes),
           reinterpret_cast<const unsigned char*>(message.data()), message.size(), code.data(),
           &size) == nullptr ||
      size != code.size()) {
    throw Error("OpenSSL cannot compute an HMAC-SHA256");
  }
  return code;
}

std::string to_hex(std::span<const std::uint8_t> bytes) {
  constexpr char digits[] = "0123456789abcdef";
  std::string text;
  for (const std::uint8_t byte : bytes) {
    text += digits[byte >> 4];
    text += digits[byte & 15];
  }
  return text;
}

}  // namespace rubriscope::vault
