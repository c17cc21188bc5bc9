#include "rubriscope/ledger/hash.h"

#include <openssl/core_dispatch.h>
#include <openssl/evp.h>
#include <openssl/provider.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "rubriscope/core/errors.h"

namespace rubriscope::ledger {

namespace {

/// SHA-256 as the provider of OpenSSL's EVP_MD implements it, by the provider's own functions. What the
/// EVP_Digest calls do around them (looking for engines, taking locks) costs more than a node's two blocks
/// where the processor has instructions for SHA-256.
struct Sha256 {
  OSSL_FUNC_digest_newctx_fn* make{};
  OSSL_FUNC_digest_freectx_fn* free{};
  OSSL_FUNC_digest_init_fn* init{};
  OSSL_FUNC_digest_update_fn* update{};
  OSSL_FUNC_digest_final_fn* finish{};
  void* provider{};
  const EVP_MD* algorithm{};  // never given back: it keeps the provider loaded

  bool found() const {
    return make != nullptr && free != nullptr && init != nullptr && update != nullptr && finish != nullptr;
  }
};

/// Whether one of `names`, with colons between, is a name of `algorithm`.
bool is_one_of(const EVP_MD* algorithm, std::string_view names) {
  for (std::size_t begin = 0; begin <= names.size();) {
    const std::size_t end = std::min(names.find(':', begin), names.size());
    if (EVP_MD_is_a(algorithm, std::string(names.substr(begin, end - begin)).c_str()) == 1) return true;
    begin = end + 1;
  }
  return false;
}

Sha256 find_sha256() {
  Sha256 found;
  const EVP_MD* const algorithm = found.algorithm = EVP_MD_fetch(nullptr, "SHA256", nullptr);
  if (algorithm == nullptr) return found;
  const OSSL_PROVIDER* const provider = EVP_MD_get0_provider(algorithm);
  if (provider == nullptr) return found;
  int may_change = 0;
  const OSSL_ALGORITHM* one = OSSL_PROVIDER_query_operation(provider, OSSL_OP_DIGEST, &may_change);
  while (one != nullptr && one->algorithm_names != nullptr && !is_one_of(algorithm, one->algorithm_names)) {
    ++one;
  }
  if (one == nullptr || one->algorithm_names == nullptr) return found;
  found.provider = OSSL_PROVIDER_get0_provider_ctx(provider);
  for (const OSSL_DISPATCH* entry = one->implementation; entry->function_id != 0; ++entry) {
    switch (entry->function_id) {
      case OSSL_FUNC_DIGEST_NEWCTX:
        found.make = OSSL_FUNC_digest_newctx(entry);
        break;
      case OSSL_FUNC_DIGEST_FREECTX:
        found.free = OSSL_FUNC_digest_freectx(entry);
        break;
      case OSSL_FUNC_DIGEST_INIT:
        found.init = OSSL_FUNC_digest_init(entry);
        break;
      case OSSL_FUNC_DIGEST_UPDATE:
        found.update = OSSL_FUNC_digest_update(entry);
        break;
      case OSSL_FUNC_DIGEST_FINAL:
        found.finish = OSSL_FUNC_digest_final(entry);
        break;
      default:
        break;
    }
  }
  return found;
}

const Sha256& sha256() {
  static const Sha256 only = find_sha256();
  return only;
}

}  // namespace

struct Hasher::Context {
  const Sha256& algorithm{sha256()};
  void* state{algorithm.found() ? algorithm.make(algorithm.provider) : nullptr};
  std::vector<std::uint8_t> message;  // prefix and entry in one piece: one update costs less than two

  ~Context() {
    if (state != nullptr) algorithm.free(state);
  }
};

Hasher::Hasher() : context_(std::make_unique<Context>()) {
  if (context_->state == nullptr) throw Error("OpenSSL has no SHA-256 here");
}

Hasher::~Hasher() = default;
Hasher::Hasher(Hasher&&) noexcept = default;
Hasher& Hasher::operator=(Hasher&&) noexcept = default;

Hash Hasher::digest(Bytes data) {
  Hash hash;
  const Sha256& algorithm = context_->algorithm;
  std::size_t written = 0;
  if (algorithm.init(context_->state, nullptr) != 1 ||
      algorithm.update(context_->state, data.data(), data.size()) != 1 ||
      algorithm.finish(context_->state, hash.data(), &written, hash.size()) != 1 || written != hash.size()) {
    throw Error("OpenSSL failed to compute a SHA-256");
  }
  return hash;
}

Hash Hasher::leaf(Bytes entry) {
  std::vector<std::uint8_t>& message = context_->message;
  message.resize(1 + entry.size());
  message[0] = kLeafPrefix;
  if (!entry.empty()) std::memcpy(message.data() + 1, entry.data(), entry.size());
  return digest(message);
}

Hash Hasher::node(const Hash& left, const Hash& right) {
  std::array<std::uint8_t, 65> message;
  message[0] = kNodePrefix;
  std::memcpy(message.data() + 1, left.data(), left.size());
  std::memcpy(message.data() + 33, right.data(), right.size());
  return digest(message);
}

Hash Hasher::plain(Bytes data) { return digest(data); }

const Hash& empty_root() {
  static const Hash root = Hasher().plain({});
  return root;
}

std::string to_hex(Bytes bytes) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  text.reserve(2 * bytes.size());
  for (const std::uint8_t byte : bytes) {
    text += kDigits[byte >> 4];
    text += kDigits[byte & 15];
  }
  return text;
}

}  // namespace rubriscope::ledger
