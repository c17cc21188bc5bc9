#include "rubriscope/film/unsealer.h"

#include <utility>

#include "rubriscope/core/errors.h"

namespace rubriscope::film {

void Unsealer::unlock(const vault::Kek& kek, const std::optional<std::string>& wrapped_search_key) {
  if (!wrapped_search_key) return;
  try {
    vault_ = std::make_shared<vault::Vault>(kek, *wrapped_search_key);
  } catch (const SealedError& error) {
    throw SealedError(where_ + ": " + error.what());
  }
}

vault::Opener& Unsealer::opener(const std::string& writer_id) {
  const auto known = openers_.find(writer_id);
  if (known != openers_.end()) return *known->second;
  if (vault_ == nullptr) {
    throw SealedError(where_ + " is encrypted: give its key (key_file=…, --key-file or RUBRISCOPE_KEY_FILE)");
  }
  const DataKey key = key_of_(writer_id);
  if (!key.wrapped) {
    throw SealedError(where_ + ": the key of writer " + writer_id +
                      " was shredded, nobody can read its records any more");
  }
  try {
    auto opener = std::make_unique<vault::Opener>(*vault_, *key.wrapped, key.session_id, writer_id);
    return *openers_.emplace(writer_id, std::move(opener)).first->second;
  } catch (const SealedError& error) {
    throw SealedError(where_ + ": writer " + writer_id + ": " + error.what());
  }
}

SchemaPtr Unsealer::schema(const Schema& stored) {
  if (stored.sealed.empty()) return std::make_shared<const Schema>(stored);
  return std::make_shared<const Schema>(opener(vault::sealed_by(stored)).open(stored));
}

std::span<const std::byte> Unsealer::record(std::span<const std::byte> sealed) {
  const DecodedRecord stored = decode_cbor(sealed);
  const DecodedRecord opened = opener(stored.writer_id).open(stored.view());
  if (stored.session_id != opened.session_id) {
    throw SealedError(where_ + ": a record of writer " + stored.writer_id + " was changed: it does not open");
  }
  SessionInfo session;
  session.id = opened.session_id;
  WriterInfo writer;
  writer.id = opened.writer_id;
  bytes_.clear();
  CborEncoder(session, writer).encode(opened.view(), bytes_);
  return bytes_;
}

std::string Unsealer::metadata(const std::string& stored) {
  const std::string writer = vault::metadata_sealed_by(stored);
  if (writer.empty()) return stored;
  try {
    return opener(writer).open_metadata(stored);
  } catch (const SealedError&) {
    return "{\"encrypted\":true}";  // listed all the same; who asks for more is told
  }
}

}  // namespace rubriscope::film
