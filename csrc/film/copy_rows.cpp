#include "rubriscope/film/copy_rows.h"

#include <bit>
#include <utility>

#include "rubriscope/core/json.h"
#include "rubriscope/sinks/rows.h"

namespace rubriscope {

namespace {

/// A table's columns in their order, and what they are: integer, real, text, array of reals, bytes.
struct Columns {
  std::string_view names;
  std::string_view types;
  std::size_t schema_key;
};

Columns described(LedgerTable table) {
  switch (table) {
    case LedgerTable::steps:
      return {postgres::CopyColumns::kSteps, "iitiirtttiiiatb", 11};
    case LedgerTable::scalars:
      return {postgres::CopyColumns::kScalars, "iiiiiab", 4};
    case LedgerTable::events:
      return {postgres::CopyColumns::kEvents, "iitttiiitttiattb", 11};
    case LedgerTable::entries:
      return {"entry_key, entry", "ib", 0};
    case LedgerTable::tiles:
      break;
  }
  return {"tile_key, hashes", "ib", 0};
}

std::string_view nth_name(std::string_view names, std::size_t place) {
  for (; place != 0; --place) names.remove_prefix(names.find(", ") + 2);
  const std::string_view name = names.substr(0, names.find(", "));
  return name.starts_with('"') ? name.substr(1, name.size() - 2) : name;
}

std::int64_t big_endian(std::string_view bytes) {
  std::int64_t value = bytes.empty() ? 0 : static_cast<signed char>(bytes[0]);
  for (std::size_t i = 1; i < bytes.size(); ++i) value = value << 8 | static_cast<unsigned char>(bytes[i]);
  return value;
}

std::string real(std::string_view bytes) {
  char text[kMaxJsonNumber];
  const auto value = std::bit_cast<double>(big_endian(bytes));
  return {text, static_cast<std::size_t>(write_json_number(text, value) - text)};
}

/// A float8[] as PostgreSQL sends it: a head of 12 bytes, 8 a dimension, and the elements.
std::string reals(std::string_view bytes) {
  std::string shown = "[";
  for (std::size_t at = 20; at + 4 <= bytes.size() && shown.size() < 60;) {
    const std::int64_t length = big_endian(bytes.substr(at, 4));
    at += 4;
    if (shown.size() > 1) shown += ',';
    shown += length == 8 ? real(bytes.substr(at, 8)) : "null";
    at += length == 8 ? 8 : 0;
  }
  return shown + "]";
}

/// As a message shows a field.
std::string shown(std::string_view field, char type) {
  if (field.data() == nullptr) return "NULL";
  switch (type) {
    case 'i':
      return std::to_string(big_endian(field));
    case 'r':
      return field.size() == 8 ? real(field) : "no number";
    case 'a':
      return reals(field);
    default:
      return "'" + std::string(field.substr(0, 60)) + "'";
  }
}

}  // namespace

CopyRows::CopyRows(LedgerTable table, std::int64_t first, std::int64_t last, Copy copy)
    : table_(table), last_(last), copy_(std::move(copy)) {
  fetch(first);
  CopyRows::advance();
}

void CopyRows::fetch(std::int64_t first) {
  piece_ = copy_(table_, first, last_);
  left_ = piece_;
  rows_ = 0;
  // The signature and the flags (COPY, "Binary Format"); then a header's extension, which has no bytes yet.
  constexpr std::string_view signature("PGCOPY\n\377\r\n\0\0\0\0\0", 15);
  if (take(signature.size()) != signature) throw FormatError("PostgreSQL's COPY sent an unknown format");
  take(static_cast<std::size_t>(take_integer(4)));
}

std::string_view CopyRows::take(std::size_t bytes) {
  if (bytes > left_.size()) throw FormatError("PostgreSQL's COPY sent a row that is cut short");
  const std::string_view taken = left_.substr(0, bytes);
  left_.remove_prefix(bytes);
  return taken;
}

std::int64_t CopyRows::take_integer(std::size_t bytes) { return big_endian(take(bytes)); }

void CopyRows::advance() {
  const char* const begin = left_.data();
  std::int64_t count = take_integer(2);
  if (count == -1) {
    const bool more = rows_ == kRowsAPiece && key_ < last_;
    has_row_ = false;
    if (!more) return;
    fetch(key_ + 1);
    return CopyRows::advance();
  }
  fields_.clear();
  for (; count > 0; --count) {
    const std::int64_t length = take_integer(4);
    fields_.push_back(length < 0 ? std::string_view() : take(static_cast<std::size_t>(length)));
  }
  if (fields_.size() != described(table_).types.size()) {
    throw FormatError("PostgreSQL's COPY sent " + std::to_string(fields_.size()) + " columns, not those of " +
                      std::string(described(table_).names));
  }
  row_ = {begin, static_cast<std::size_t>(left_.data() - begin)};
  ++rows_;
  has_row_ = true;
  key_ = big_endian(fields_[0]);
}

std::span<const std::byte> CopyRows::bytes() {
  const std::string_view field = fields_.back();
  return std::as_bytes(std::span(field.data(), field.size()));
}

std::int64_t CopyRows::schema_key() { return big_endian(fields_[described(table_).schema_key]); }

/// The columns as the record says them, into expected_.
void CopyRows::columns(const RecordView& record, std::int64_t session) {
  if (!columns_ || columns_->session_id() != session) {
    columns_.emplace(session, key_ >> rows::kSequenceBits);
  }
  expected_.taken();
  if (table_ == LedgerTable::scalars) return columns_->scalars(record, schema_key(), expected_);
  if (table_ == LedgerTable::events) return columns_->event(record, schema_key(), expected_);
  const rows::Columns extras = rows::columns_of(record);
  episode_.clear();
  if (extras.episode.data() != nullptr) postgres::append_text(episode_, extras.episode);
  columns_->step(record, schema_key(), extras,
                 extras.episode.data() != nullptr ? std::string_view(episode_) : std::string_view(),
                 expected_);
}

void CopyRows::check(const RecordView& record, std::int64_t session) {
  columns(record, session);
  std::string_view expected = expected_.bytes();
  if (row_.substr(0, expected.size()) == expected) return;
  const Columns of = described(table_);
  expected.remove_prefix(2);
  for (std::size_t i = 0; i + 1 < fields_.size(); ++i) {
    const std::int64_t length = big_endian(expected.substr(0, 4));
    expected.remove_prefix(4);
    const std::string_view wanted =
        length < 0 ? std::string_view() : expected.substr(0, static_cast<std::size_t>(length));
    expected.remove_prefix(wanted.size());
    if (wanted == fields_[i] && (wanted.data() == nullptr) == (fields_[i].data() == nullptr)) continue;
    throw LedgerProblem(record_name(key_) + ": its column " + std::string(nth_name(of.names, i)) + " is " +
                        shown(fields_[i], of.types[i]) + ", its signed bytes say " +
                        shown(wanted, of.types[i]));
  }
}

}  // namespace rubriscope
