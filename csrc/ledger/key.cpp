#include "rubriscope/ledger/key.h"

#include <openssl/evp.h>
#include <openssl/rand.h>

#include "rubriscope/core/errors.h"

namespace rubriscope::ledger {

namespace {

struct FreeContext {
  void operator()(EVP_MD_CTX* context) const { EVP_MD_CTX_free(context); }
};
using Context = std::unique_ptr<EVP_MD_CTX, FreeContext>;

}  // namespace

void SigningKey::Free::operator()(void* key) const { EVP_PKEY_free(static_cast<EVP_PKEY*>(key)); }

SigningKey SigningKey::generate() {
  Seed seed;
  if (RAND_priv_bytes(seed.data(), static_cast<int>(seed.size())) != 1) {
    throw Error("OpenSSL has no random bytes for a key");
  }
  return SigningKey(seed);
}

SigningKey::SigningKey(const Seed& seed)
    : seed_(seed), key_(EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, nullptr, seed.data(), seed.size())) {
  std::size_t size = public_.size();
  if (!key_ || EVP_PKEY_get_raw_public_key(static_cast<EVP_PKEY*>(key_.get()), public_.data(), &size) != 1) {
    throw ValueError("OpenSSL refuses this Ed25519 key");
  }
}

Signature SigningKey::sign(Bytes message) const {
  const Context context(EVP_MD_CTX_new());
  Signature signature;
  std::size_t size = signature.size();
  if (!context ||
      EVP_DigestSignInit(context.get(), nullptr, nullptr, nullptr, static_cast<EVP_PKEY*>(key_.get())) != 1 ||
      EVP_DigestSign(context.get(), signature.data(), &size, message.data(), message.size()) != 1) {
    throw Error("OpenSSL failed to sign");
  }
  return signature;
}

bool verify_signature(const PublicKey& key, Bytes message, const Signature& signature) {
  struct FreeKey {
    void operator()(EVP_PKEY* pkey) const { EVP_PKEY_free(pkey); }
  };
  const std::unique_ptr<EVP_PKEY, FreeKey> pkey(
      EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, nullptr, key.data(), key.size()));
  const Context context(EVP_MD_CTX_new());
  return pkey && context && EVP_DigestVerifyInit(context.get(), nullptr, nullptr, nullptr, pkey.get()) == 1 &&
         EVP_DigestVerify(context.get(), signature.data(), signature.size(), message.data(),
                          message.size()) == 1;
}

}  // namespace rubriscope::ledger
