#include "rubriscope/vault/aead.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>

#include <limits>

#include "rubriscope/core/errors.h"

namespace rubriscope::vault {

namespace {

EVP_CIPHER_CTX* as_context(void* context) { return static_cast<EVP_CIPHER_CTX*>(context); }

bool fits(Octets bytes) { return bytes.size() <= static_cast<std::size_t>(std::numeric_limits<int>::max()); }

}  // namespace

void Aead::Free::operator()(void* context) const { EVP_CIPHER_CTX_free(as_context(context)); }

Aead::Aead(const Secret& key) : sealing_(EVP_CIPHER_CTX_new()), opening_(EVP_CIPHER_CTX_new()) {
  if (sealing_ == nullptr || opening_ == nullptr ||
      EVP_EncryptInit_ex(as_context(sealing_.get()), EVP_aes_256_gcm(), nullptr, key.bytes().data(),
                         nullptr) != 1 ||
      EVP_DecryptInit_ex(as_context(opening_.get()), EVP_aes_256_gcm(), nullptr, key.bytes().data(),
                         nullptr) != 1) {
    throw Error("OpenSSL cannot set up AES-256-GCM");
  }
}

bool Aead::seal(const Nonce& nonce, Octets additional, Octets plain, std::uint8_t* out) noexcept {
  EVP_CIPHER_CTX* const context = as_context(sealing_.get());
  int size = 0;
  return fits(additional) && fits(plain) &&
         EVP_EncryptInit_ex(context, nullptr, nullptr, nullptr, nonce.data()) == 1 &&
         (additional.empty() || EVP_EncryptUpdate(context, nullptr, &size, additional.data(),
                                                  static_cast<int>(additional.size())) == 1) &&
         (plain.empty() ||
          EVP_EncryptUpdate(context, out, &size, plain.data(), static_cast<int>(plain.size())) == 1) &&
         EVP_EncryptFinal_ex(context, out + plain.size(), &size) == 1 &&
         EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_GCM_GET_TAG, static_cast<int>(kTagBytes),
                             out + plain.size()) == 1;
}

bool Aead::open(const Nonce& nonce, Octets additional, Octets sealed, std::uint8_t* out) noexcept {
  if (sealed.size() < kTagBytes || !fits(sealed) || !fits(additional)) return false;
  EVP_CIPHER_CTX* const context = as_context(opening_.get());
  const std::size_t bytes = sealed.size() - kTagBytes;
  std::array<std::uint8_t, kTagBytes> tag;
  std::copy(sealed.end() - kTagBytes, sealed.end(), tag.begin());
  int size = 0;
  const bool good =
      EVP_DecryptInit_ex(context, nullptr, nullptr, nullptr, nonce.data()) == 1 &&
      (additional.empty() || EVP_DecryptUpdate(context, nullptr, &size, additional.data(),
                                               static_cast<int>(additional.size())) == 1) &&
      (bytes == 0 || EVP_DecryptUpdate(context, out, &size, sealed.data(), static_cast<int>(bytes)) == 1) &&
      EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_GCM_SET_TAG, static_cast<int>(kTagBytes), tag.data()) == 1 &&
      EVP_DecryptFinal_ex(context, out + bytes, &size) == 1;
  if (!good) OPENSSL_cleanse(out, bytes);
  return good;
}

}  // namespace rubriscope::vault
