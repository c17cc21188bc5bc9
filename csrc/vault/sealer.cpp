#include "rubriscope/vault/sealer.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <charconv>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "rubriscope/core/base64.h"
#include "rubriscope/core/errors.h"
#include "rubriscope/core/json.h"

namespace rubriscope::vault {

namespace {

/// What a nonce counts: the first four of its bytes.
enum Domain : std::uint32_t { kRecords = 0, kSchemas = 1, kMetadata = 2 };

constexpr std::size_t kBodyAt = sizeof(RecordHeader) - Sealer::kBodyBytes;
static_assert(offsetof(RecordHeader, extras_bytes) == kBodyAt &&
              offsetof(RecordHeader, outcome) == kBodyAt + 4 &&
              offsetof(RecordHeader, duration_ns) == kBodyAt + 8);

Nonce nonce_of(std::uint32_t domain, std::uint64_t counter) {
  Nonce nonce;
  for (int i = 0; i < 4; ++i) nonce[i] = static_cast<std::uint8_t>(domain >> (24 - 8 * i));
  for (int i = 0; i < 8; ++i) nonce[4 + i] = static_cast<std::uint8_t>(counter >> (56 - 8 * i));
  return nonce;
}

/// Additional data: whose it is, and everything of a record that stays readable.
class Additional {
 public:
  Additional(std::uint32_t domain, const UuidBytes& session, const UuidBytes& writer) {
    put(domain);
    put(session);
    put(writer);
  }
  Additional& header(const RecordHeader& of) {
    put(of.kind);
    put(of.schema);
    put(of.sequence);
    put(of.time_ns);
    put(of.monotonic_ns);
    put(of.step);
    put(of.group);
    put(of.sample);
    put(of.thread);
    return *this;
  }
  Additional& counter(std::uint64_t value) {
    put(value);
    return *this;
  }
  Octets bytes() const { return {bytes_.data(), size_}; }

 private:
  template <class Value>
  void put(const Value& value) {
    std::memcpy(bytes_.data() + size_, &value, sizeof value);
    size_ += sizeof value;
  }

  std::array<std::uint8_t, 96> bytes_;
  std::size_t size_{0};
};

/// Records that this thread is filling, the last one first.
struct Scratch {
  RecordHeader* reserved{nullptr};
  std::vector<std::uint64_t> words;
};
struct Scratches {
  std::vector<std::unique_ptr<Scratch>> all;
  std::size_t used{0};
};

Scratches& scratches() {
  static thread_local Scratches of_thread;
  return of_thread;
}

/// This thread's cipher under the key of the sealer it used last.
Aead& cipher_of(std::uint64_t number, const Secret& key) {
  struct Cached {
    std::uint64_t number{0};
    std::unique_ptr<Aead> aead;
  };
  static thread_local Cached cached;
  if (cached.number != number) {
    cached.aead = std::make_unique<Aead>(key);
    cached.number = number;
  }
  return *cached.aead;
}

std::uint64_t next_number() {
  static std::atomic<std::uint64_t> last{0};
  return ++last;
}

std::string seal_text(const Secret& key, const UuidBytes& session, const UuidBytes& writer, Domain domain,
                      std::uint64_t counter, std::string_view plain) {
  std::string sealed(plain.size() + kTagBytes, '\0');
  if (!Aead(key).seal(nonce_of(domain, counter), Additional(domain, session, writer).counter(counter).bytes(),
                      as_octets(plain), reinterpret_cast<std::uint8_t*>(sealed.data()))) {
    throw Error("OpenSSL cannot encrypt with AES-256-GCM");
  }
  return to_base64(as_octets(sealed));
}

/// Splits "writer:number:base64", or "writer:base64".
std::vector<std::string_view> parts_of(std::string_view text) {
  std::vector<std::string_view> parts;
  while (true) {
    const std::size_t colon = text.find(':');
    parts.push_back(text.substr(0, colon));
    if (colon == std::string_view::npos) return parts;
    text.remove_prefix(colon + 1);
  }
}

constexpr std::string_view kMetadataStart = "{\"sealed\":\"";
constexpr std::string_view kMetadataEnd = "\"}";

std::string_view sealed_metadata(std::string_view json) {
  if (!json.starts_with(kMetadataStart) || !json.ends_with(kMetadataEnd)) return {};
  json.remove_prefix(kMetadataStart.size());
  json.remove_suffix(kMetadataEnd.size());
  return json;
}

}  // namespace

Sealer::Sealer(VaultPtr vault, const SessionInfo& session, const WriterInfo& writer)
    : vault_(std::move(vault)),
      writer_id_(writer.id),
      session_(uuid_bytes(session.id)),
      writer_(uuid_bytes(writer.id)),
      data_key_(Secret::random()),
      wrapped_key_(vault_->kek().wrap(data_key_, data_key_purpose(session.id, writer.id))),
      number_(next_number()) {}

Schema Sealer::seal(const Schema& plain) const {
  Schema shown;
  shown.id = plain.id;
  shown.kind = plain.kind;
  shown.sealed = writer_id_ + ":" + std::to_string(plain.id) + ":" +
                 seal_text(data_key_, session_, writer_, kSchemas, plain.id, plain.definition_json());
  if (plain.kind == Schema::Kind::event) {
    shown.name = vault_->token(plain.name);
    shown.attributes = "{}";
  }
  for (const Slot& slot : plain.slots) {
    Slot& tokens = shown.slots.emplace_back();
    for (const std::string& path : slot.paths) tokens.paths.push_back(vault_->token(path));
  }
  return shown;
}

std::string Sealer::seal_metadata(std::string_view json) const {
  return std::string(kMetadataStart) + writer_id_ + ":" +
         seal_text(data_key_, session_, writer_, kMetadata, 0, json) + std::string(kMetadataEnd);
}

RecordHeader* Sealer::scratch_for(RecordHeader* reserved, std::size_t plain_bytes) noexcept {
  Scratches& mine = scratches();
  if (mine.used == mine.all.size()) mine.all.push_back(std::make_unique<Scratch>());
  Scratch& scratch = *mine.all[mine.used++];
  scratch.reserved = reserved;
  const std::size_t words = padded(plain_bytes) / 8;
  if (scratch.words.size() < words) scratch.words.resize(words);
  auto* const header = reinterpret_cast<RecordHeader*>(scratch.words.data());
  header->length_and_state = static_cast<std::uint32_t>(padded(plain_bytes)) | RecordHeader::kReserved;
  header->sequence = reserved->sequence;
  header->outcome = Outcome::success;
  header->duration_ns = 0;
  return header;
}

RecordHeader* Sealer::seal(RecordHeader* filled) const noexcept {
  Scratches& mine = scratches();
  std::size_t at = mine.used;
  while (reinterpret_cast<RecordHeader*>(mine.all[--at]->words.data()) != filled) {
  }
  std::swap(mine.all[at], mine.all[--mine.used]);
  RecordHeader* const out = mine.all[mine.used]->reserved;

  const std::uint32_t state = out->length_and_state;
  const std::size_t body = kBodyBytes + arrays_bytes(filled->slots) + filled->extras_bytes;
  std::memcpy(reinterpret_cast<std::byte*>(out) + 8, reinterpret_cast<const std::byte*>(filled) + 8,
              kBodyAt - 8);
  out->length_and_state = state;
  out->slots = 0;
  out->outcome = Outcome::success;
  out->duration_ns = 0;
  // The slots go along in the upper half of the outcome: nobody else is to know how many nodes a tree has.
  filled->outcome =
      static_cast<Outcome>(static_cast<std::uint32_t>(filled->outcome) | std::uint32_t{filled->slots} << 16);
  const ExtraHeader extra{ExtraTag::sealed, 0, 0, static_cast<std::uint32_t>(body + kTagBytes)};
  auto* const to = reinterpret_cast<std::byte*>(out + 1);
  std::memcpy(to, &extra, sizeof extra);
  auto* const sealed = reinterpret_cast<std::uint8_t*>(to + sizeof extra);
  const bool done = cipher_of(number_, data_key_)
                        .seal(nonce_of(kRecords, out->sequence),
                              Additional(kRecords, session_, writer_).header(*out).bytes(),
                              {reinterpret_cast<const std::uint8_t*>(filled) + kBodyAt, body}, sealed);
  // Of a cipher that failed nothing may be stored: zeros do not open, and the reader says so.
  if (!done) std::memset(sealed, 0, body + kTagBytes);
  const std::size_t room = padded(body + kTagBytes);
  std::memset(sealed + body + kTagBytes, 0, room - (body + kTagBytes));
  out->extras_bytes = static_cast<std::uint32_t>(sizeof extra + room);
  return out;
}

Opener::Opener(const Vault& vault, std::string_view wrapped_key, std::string_view session_id,
               std::string_view writer_id)
    : session_id_(session_id),
      writer_id_(writer_id),
      session_(uuid_bytes(session_id)),
      writer_(uuid_bytes(writer_id)),
      aead_(vault.kek().unwrap(wrapped_key, data_key_purpose(session_id, writer_id))) {}

DecodedRecord Opener::open(const RecordView& sealed) {
  const RecordHeader& header = *sealed.header;
  const std::string_view bytes = sealed.extra(ExtraTag::sealed);
  const auto refuse = [&](const char* why) {
    throw SealedError("record " + std::to_string(header.sequence) + " of writer " + writer_id_ + " " + why);
  };
  if (bytes.size() < Sealer::kBodyBytes + kTagBytes) refuse("is not sealed");
  const std::size_t body = bytes.size() - kTagBytes;
  DecodedRecord opened;
  opened.session_id = session_id_;
  opened.writer_id = writer_id_;
  opened.words.resize(padded(kBodyAt + body) / 8);
  auto* const out = reinterpret_cast<RecordHeader*>(opened.words.data());
  std::memcpy(out, &header, kBodyAt);
  if (!aead_.open(nonce_of(kRecords, header.sequence),
                  Additional(kRecords, session_, writer_).header(header).bytes(), as_octets(bytes),
                  reinterpret_cast<std::uint8_t*>(out) + kBodyAt)) {
    refuse("was changed, or moved: it does not open");
  }
  const auto outcome = static_cast<std::uint32_t>(out->outcome);
  out->slots = static_cast<std::uint16_t>(outcome >> 16);
  out->outcome = static_cast<Outcome>(outcome & 0xFFFF);
  if (kBodyAt + body != sizeof(RecordHeader) + arrays_bytes(out->slots) + out->extras_bytes) {
    refuse("holds something else than a record");
  }
  out->length_and_state = static_cast<std::uint32_t>(opened.words.size() * 8) | RecordHeader::kCommitted;
  return opened;
}

std::string Opener::open_text(std::uint32_t domain, std::uint64_t counter, std::string_view base64,
                              const char* what) {
  const std::optional<std::string> sealed = from_base64(base64);
  std::string plain;
  if (sealed && sealed->size() >= kTagBytes) {
    plain.resize(sealed->size() - kTagBytes);
    if (aead_.open(nonce_of(domain, counter), Additional(domain, session_, writer_).counter(counter).bytes(),
                   as_octets(*sealed), reinterpret_cast<std::uint8_t*>(plain.data()))) {
      return plain;
    }
  }
  throw SealedError(std::string(what) + " of writer " + writer_id_ +
                    " was changed, or moved: it does not open");
}

Schema Opener::open(const Schema& sealed) {
  const std::vector<std::string_view> parts = parts_of(sealed.sealed);
  std::uint32_t number = 0;
  if (parts.size() != 3 || parts[0] != writer_id_ ||
      std::from_chars(parts[1].data(), parts[1].data() + parts[1].size(), number).ec != std::errc{}) {
    throw SealedError("a schema of writer " + writer_id_ + " is not sealed by it");
  }
  return Schema::from_definition_json(open_text(kSchemas, number, parts[2], "a schema"), sealed.id);
}

std::string Opener::open_metadata(std::string_view sealed_json) {
  const std::vector<std::string_view> parts = parts_of(sealed_metadata(sealed_json));
  if (parts.size() != 2 || parts[0] != writer_id_) {
    throw SealedError("the metadata of session " + session_id_ + " is not sealed by writer " + writer_id_);
  }
  return open_text(kMetadata, 0, parts[1], "the metadata");
}

std::string sealed_by(const Schema& schema) {
  return schema.sealed.empty() ? std::string() : std::string(parts_of(schema.sealed)[0]);
}

std::string metadata_sealed_by(std::string_view metadata_json) {
  const std::string_view sealed = sealed_metadata(metadata_json);
  return sealed.empty() ? std::string() : std::string(parts_of(sealed)[0]);
}

}  // namespace rubriscope::vault
