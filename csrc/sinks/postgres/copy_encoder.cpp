#include "rubriscope/sinks/postgres/copy_encoder.h"

#include <algorithm>
#include <bit>
#include <charconv>
#include <cmath>
#include <cstring>

#include "rubriscope/core/big_endian.h"
#include "rubriscope/core/captured.h"
#include "rubriscope/core/errors.h"
#include "rubriscope/core/json.h"
#include "rubriscope/sinks/event_columns.h"

namespace rubriscope::postgres {
namespace {

constexpr std::int32_t kFloat8Oid = 701;

}  // namespace

char* CopyStream::room(std::size_t bytes) {
  if (bytes_.size() - size_ < bytes) bytes_.resize(std::max(bytes_.size() * 2, size_ + bytes + 4096));
  char* const at = bytes_.data() + size_;
  size_ += bytes;
  return at;
}

template <class Integer>
void CopyStream::put(Integer value) {
  put_big_endian(room(sizeof value), value);
}

template void CopyStream::put(std::int16_t);
template void CopyStream::put(std::int32_t);
template void CopyStream::put(std::int64_t);

void CopyStream::begin() {
  // The signature, no flags, no header extension.
  static constexpr char kHeader[] = "PGCOPY\n\377\r\n\0\0\0\0\0\0\0\0\0";
  static_assert(sizeof kHeader - 1 == 19);
  size_ = 0;
  std::memcpy(room(19), kHeader, 19);
}

void CopyStream::end() { put(std::int16_t{-1}); }

void CopyStream::float8(double value) { int8(std::bit_cast<std::int64_t>(value)); }

void CopyStream::field(const void* data, std::size_t bytes) {
  char* const at = put_big_endian(room(4 + bytes), static_cast<std::int32_t>(bytes));
  if (bytes != 0) std::memcpy(at, data, bytes);
}

void CopyStream::scores(const RecordView& record) {
  const std::size_t slots = record.header->slots;
  const double* const values = record.scores();
  const Status* const statuses = record.statuses();
  std::size_t nulls = 0;
  for (std::size_t i = 0; i < slots; ++i) nulls += statuses[i] != Status::scored;
  // Dimensions, whether there are NULLs, element type, then a length and lower bound for each dimension.
  const std::size_t head = slots == 0 ? 12 : 20;
  const std::size_t bytes = head + slots * 12 - nulls * 8;
  char* at = put_big_endian(room(4 + bytes), static_cast<std::int32_t>(bytes));
  at = put_big_endian(at, std::int32_t{slots == 0 ? 0 : 1});
  at = put_big_endian(at, std::int32_t{nulls != 0});
  at = put_big_endian(at, kFloat8Oid);
  if (slots == 0) return;
  at = put_big_endian(at, static_cast<std::int32_t>(slots));
  at = put_big_endian(at, std::int32_t{1});
  for (std::size_t i = 0; i < slots; ++i) {
    if (statuses[i] != Status::scored) {
      at = put_big_endian(at, std::int32_t{-1});
      continue;
    }
    at = put_big_endian(at, std::int32_t{8});
    at = put_big_endian(at, std::bit_cast<std::int64_t>(values[i]));
  }
}

void append_text(std::string& out, std::string_view text) {
  const std::size_t start = out.size();
  append_valid_utf8(out, text);
  for (std::size_t at = out.find('\0', start); at != std::string::npos; at = out.find('\0', at)) {
    out.replace(at, 1, "\xEF\xBF\xBD");
  }
}

void append_json(std::string& out, std::string_view json_text) {
  std::size_t at = out.size();
  append_json_value(out, json_text);
  // The code unit of the escape at `from`, or -1.
  const auto unit = [&out](std::size_t from) {
    unsigned value = 0;
    if (from + 6 > out.size() || out[from] != '\\' || out[from + 1] != 'u') return -1;
    std::from_chars(&out[from + 2], &out[from] + 6, value, 16);
    return static_cast<int>(value);
  };
  while ((at = out.find('\\', at)) != std::string::npos) {
    const int first = unit(at);
    if (first < 0) {
      at += 2;  // an escaped character, a backslash among them
      continue;
    }
    const bool high = first >= 0xD800 && first < 0xDC00;
    const int second = high ? unit(at + 6) : -1;
    if (second >= 0xDC00 && second < 0xE000) {
      at += 12;
      continue;
    }
    if (first == 0 || (first >= 0xD800 && first < 0xE000)) out.replace(at, 6, "\\ufffd");
    at += 6;
  }
}

std::int64_t CopyColumns::key(const RecordView& record) const {
  const std::uint64_t sequence = record.header->sequence;
  if (sequence > rows::kSequenceMask) {
    throw SinkError("sequence " + std::to_string(sequence) + " does not fit the 40 bits of a step_key",
                    false);
  }
  return rows::first_key(writer_key_) | static_cast<std::int64_t>(sequence);
}

void CopyColumns::capture(const RecordView::Extra& capture, CopyStream& out) {
  if (capture.text.data() == nullptr) {
    out.null();
    return;
  }
  captured_.clear();
  append_captured_text(captured_, capture.text, capture.form);
  text(captured_, out);
}

void CopyColumns::text(std::string_view text, CopyStream& out) {
  text_.clear();
  append_text(text_, text);
  out.text(text_);
}

void CopyColumns::optional_text(const std::optional<std::string>& text_or_none, CopyStream& out) {
  if (text_or_none) {
    text(*text_or_none, out);
  } else {
    out.null();
  }
}

void CopyColumns::json(std::string_view json_text, CopyStream& out) {
  text_.clear();
  append_json(text_, json_text);
  out.text(text_);
}

void CopyColumns::step(const RecordView& record, std::int64_t schema_key, const rows::Columns& columns,
                       std::string_view episode, CopyStream& out) {
  const RecordHeader& header = *record.header;
  out.row(15);
  out.int8(key(record));
  out.int8(session_id_);
  if (episode.data() == nullptr) {
    out.null();
  } else {
    out.text(episode);
  }
  out.int8(header.step);
  out.int8(header.time_ns);
  if (header.slots != 0 && record.statuses()[0] == Status::scored && std::isfinite(record.scores()[0])) {
    out.float8(record.scores()[0]);  // slot 0 of a tree is its root
  } else {
    out.null();
  }
  capture(columns.action, out);
  capture(columns.observation, out);
  if (columns.metadata_json.data() == nullptr) {
    out.null();
  } else {
    json(columns.metadata_json, out);
  }
  if (header.group == kNoGroup) {
    out.null();
  } else {
    out.int8(header.group);
  }
  if (header.sample == kNoSample) {
    out.null();
  } else {
    out.int4(header.sample);
  }
  out.int8(schema_key);
  out.scores(record);
  if (rows::all_scored(record)) {
    out.null();
  } else {
    out.text(rows::write_statuses(record, text_));
  }
}

void CopyColumns::scalars(const RecordView& record, std::int64_t schema_key, CopyStream& out) {
  const RecordHeader& header = *record.header;
  out.row(7);
  out.int8(key(record));
  out.int8(session_id_);
  out.int8(header.step);
  out.int8(header.time_ns);
  out.int8(schema_key);
  out.scores(record);
}

void CopyColumns::event(const RecordView& record, std::int64_t schema_key, CopyStream& out) {
  const RecordHeader& header = *record.header;
  const rows::EventColumns columns(record);
  out.row(16);
  out.int8(key(record));
  out.int8(session_id_);
  out.text(kind_name(header.kind));
  text(columns.name, out);
  optional_text(columns.episode, out);
  out.int8(header.step);
  out.int8(header.time_ns);
  out.int8(columns.duration_ns);
  out.text(columns.outcome);
  optional_text(columns.trace_id, out);
  optional_text(columns.parent_id, out);
  out.int8(schema_key);
  out.scores(record);
  json(columns.fields, out);
  if (columns.metadata) {
    json(*columns.metadata, out);
  } else {
    out.null();
  }
}

void CopyEncoder::bytes(const RecordView& record, CopyStream& out) {
  record_.clear();
  encoder_.encode(record, record_);
  out.bytea(record_);
}

}  // namespace rubriscope::postgres
