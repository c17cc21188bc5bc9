#include "rubriscope/ledger/note.h"

#include <algorithm>
#include <charconv>
#include <cstring>

#include "rubriscope/core/base64.h"
#include "rubriscope/core/errors.h"

namespace rubriscope::ledger {

namespace {

constexpr std::uint8_t kEd25519 = 0x01;
constexpr std::string_view kSignatureMark = "\xe2\x80\x94 ";  // an em dash and a space

[[noreturn]] void refuse(const char* what, std::string_view given) {
  constexpr std::size_t kShown = 80;
  throw ValueError(std::string(what) + ": '" + std::string(given.substr(0, kShown)) +
                   (given.size() > kShown ? "…'" : "'"));
}

bool is_name(std::string_view name) {
  return !name.empty() && name.find_first_of("+ \t\r\n") == std::string_view::npos;
}

std::string big_endian(std::uint32_t number) {
  std::string bytes;
  for (int shift = 24; shift >= 0; shift -= 8) bytes += static_cast<char>(number >> shift);
  return bytes;
}

std::uint32_t from_big_endian(std::string_view bytes) {
  std::uint32_t number = 0;
  for (std::size_t i = 0; i < 4; ++i) number = number << 8 | static_cast<std::uint8_t>(bytes[i]);
  return number;
}

// Takes a line off the front, without its line break; nullopt where there is no whole one.
std::optional<std::string_view> next_line(std::string_view& rest) {
  const std::size_t end = rest.find('\n');
  if (end == std::string_view::npos) return std::nullopt;
  const std::string_view line = rest.substr(0, end);
  rest.remove_prefix(end + 1);
  return line;
}

}  // namespace

std::uint32_t VerifierKey::id() const {
  std::string message = name + "\n";
  message += static_cast<char>(kEd25519);
  message.append(reinterpret_cast<const char*>(key.data()), key.size());
  const Hash hash = Hasher().plain(bytes_of(message));
  return from_big_endian({reinterpret_cast<const char*>(hash.data()), 4});
}

std::string VerifierKey::text() const {
  std::string bytes(1, static_cast<char>(kEd25519));
  bytes.append(reinterpret_cast<const char*>(key.data()), key.size());
  return name + "+" + to_hex(bytes_of(big_endian(id()))) + "+" + to_base64(bytes_of(bytes));
}

VerifierKey VerifierKey::parse(std::string_view text) {
  constexpr const char* kWhat = "not a verifier key (expected name+id+base64)";
  const std::size_t first = text.find('+');
  const std::size_t second = first == std::string_view::npos ? first : text.find('+', first + 1);
  if (second == std::string_view::npos) refuse(kWhat, text);
  VerifierKey found;
  found.name = text.substr(0, first);
  const std::optional<std::string> bytes = from_base64(text.substr(second + 1));
  if (!is_name(found.name) || !bytes || bytes->size() != 1 + found.key.size()) refuse(kWhat, text);
  if (static_cast<std::uint8_t>((*bytes)[0]) != kEd25519) refuse("not an Ed25519 key", text);
  std::memcpy(found.key.data(), bytes->data() + 1, found.key.size());
  if (text.substr(first + 1, second - first - 1) != to_hex(bytes_of(big_endian(found.id())))) {
    refuse("the id of this verifier key is not its own", text);
  }
  return found;
}

Note Note::parse(std::string_view note) {
  constexpr const char* kWhat = "not a signed note";
  const std::size_t split = note.rfind("\n\n");
  if (split == std::string_view::npos || !note.ends_with('\n')) refuse(kWhat, note);
  Note found;
  found.text = note.substr(0, split + 1);
  std::string_view rest = note.substr(split + 2);
  while (!rest.empty()) {
    std::string_view line = *next_line(rest);
    if (!line.starts_with(kSignatureMark)) refuse(kWhat, line);
    line.remove_prefix(kSignatureMark.size());
    const std::size_t space = line.find(' ');
    if (space == std::string_view::npos) refuse(kWhat, line);
    const std::optional<std::string> bytes = from_base64(line.substr(space + 1));
    const std::string_view name = line.substr(0, space);
    if (!is_name(name) || !bytes || bytes->size() <= 4) refuse(kWhat, line);
    found.signatures.push_back({std::string(name), from_big_endian(*bytes), bytes->substr(4)});
  }
  if (found.signatures.empty()) refuse(kWhat, note);
  return found;
}

std::string Note::serialized() const {
  std::string note = text + "\n";
  for (const Line& line : signatures) {
    note += kSignatureMark;
    note += line.name + " " + to_base64(bytes_of(big_endian(line.key_id) + line.signature)) + "\n";
  }
  return note;
}

void Note::sign(const std::string& name, const SigningKey& key) {
  if (!is_name(name)) refuse("not a key's name (no plus, no white space)", name);
  if (!text.ends_with('\n')) refuse("a note's text ends in a line break", text);
  const Signature signature = key.sign(bytes_of(text));
  signatures.push_back({name, VerifierKey{name, key.public_key()}.id(),
                        std::string(reinterpret_cast<const char*>(signature.data()), signature.size())});
}

bool Note::is_signed_by(const VerifierKey& key) const {
  bool holds = false;
  for (const Line& line : signatures) {
    if (line.name != key.name || line.key_id != key.id()) continue;
    Signature signature;
    if (line.signature.size() != signature.size()) return false;
    std::memcpy(signature.data(), line.signature.data(), signature.size());
    if (!verify_signature(key.key, bytes_of(text), signature)) return false;
    holds = true;
  }
  return holds;
}

std::string Checkpoint::text() const {
  std::string lines = origin + "\n" + std::to_string(size) + "\n" + to_base64(root) + "\n";
  for (const std::string& extension : extensions) lines += extension + "\n";
  return lines;
}

Checkpoint Checkpoint::parse(std::string_view text) {
  constexpr const char* kWhat = "not a checkpoint";
  std::string_view rest = text;
  const auto origin = next_line(rest);
  const auto size = origin ? next_line(rest) : std::nullopt;
  const auto root = size ? next_line(rest) : std::nullopt;
  if (!root || origin->empty()) refuse(kWhat, text);
  Checkpoint found;
  found.origin = *origin;
  const auto [end, error] = std::from_chars(size->data(), size->data() + size->size(), found.size);
  const bool leading_zero = size->size() > 1 && size->front() == '0';
  if (error != std::errc() || end != size->data() + size->size() || leading_zero) refuse(kWhat, *size);
  const std::optional<std::string> hash = from_base64(*root);
  if (!hash || hash->size() != found.root.size()) refuse(kWhat, *root);
  std::memcpy(found.root.data(), hash->data(), found.root.size());
  while (const auto line = next_line(rest)) {
    if (line->empty()) refuse(kWhat, text);
    found.extensions.emplace_back(*line);
  }
  if (!rest.empty()) refuse(kWhat, rest);
  return found;
}

}  // namespace rubriscope::ledger
