// PostgreSQL's binary COPY format: rows of the tables in docs/formats.md, encoded from records.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "rubriscope/core/cbor.h"
#include "rubriscope/core/ids.h"
#include "rubriscope/core/record.h"
#include "rubriscope/sinks/rows.h"

namespace rubriscope::postgres {

/// The bytes of one `COPY … FROM STDIN WITH (FORMAT binary)`. They may be taken away piece by piece.
class CopyStream {
 public:
  void begin();
  void end();

  void row(std::int16_t fields) { put(fields); }
  void null() { put(std::int32_t{-1}); }
  void int8(std::int64_t value) {
    put(std::int32_t{8});
    put(value);
  }
  void int4(std::int32_t value) {
    put(std::int32_t{4});
    put(value);
  }
  void float8(double value);
  /// UTF-8 without NUL (see append_text()).
  void text(std::string_view text) { field(text.data(), text.size()); }
  void bytea(std::span<const std::byte> bytes) { field(bytes.data(), bytes.size()); }
  /// float8[], with NULL where there is no score.
  void scores(const RecordView& record);

  std::string_view bytes() const { return {bytes_.data(), size_}; }
  std::size_t size() const { return size_; }
  /// Forgets what bytes() gave; the stream goes on.
  void taken() { size_ = 0; }

 private:
  template <class Integer>
  void put(Integer value);
  void field(const void* data, std::size_t bytes);
  char* room(std::size_t bytes);

  std::vector<char> bytes_;
  std::size_t size_{0};
};

/// Appends `text` as PostgreSQL takes it: valid UTF-8, and U+FFFD for each NUL.
void append_text(std::string& out, std::string_view text);

/// Appends a user's JSON as PostgreSQL takes it: what append_json_value() makes of it, and U+FFFD for escapes
/// that stand for no character it knows (NUL, half a surrogate pair).
void append_json(std::string& out, std::string_view json_text);

/// The columns of one writer's rows in `steps`, `scalars` and `events`, but the last one, the record: for who
/// writes rows and who checks them.
class CopyColumns {
 public:
  static constexpr const char* kSteps =
      "step_key, session_id, episode_id, step_index, time_ns, reward, action, observation, metadata, "
      "group_id, sample_index, schema_key, scores, statuses, record";
  static constexpr const char* kScalars =
      "scalar_key, session_id, step_index, time_ns, schema_key, \"values\", record";
  static constexpr const char* kEvents =
      "event_key, session_id, kind, name, episode_id, step_index, time_ns, duration_ns, outcome, trace_id, "
      "parent_id, schema_key, \"values\", fields, metadata, record";

  CopyColumns(std::int64_t session_id, std::int64_t writer_key)
      : session_id_(session_id), writer_key_(writer_key) {}

  std::int64_t session_id() const { return session_id_; }
  std::int64_t writer_key() const { return writer_key_; }
  /// step_key, scalar_key or event_key. Throws SinkError for a sequence of more than 40 bits.
  std::int64_t key(const RecordView& record) const;

  /// Of a snapshot. `episode` is its name as append_text() gave it, null data() where there is none.
  void step(const RecordView& record, std::int64_t schema_key, const rows::Columns& columns,
            std::string_view episode, CopyStream& out);
  /// Of a scalars record.
  void scalars(const RecordView& record, std::int64_t schema_key, CopyStream& out);
  /// Of an event.
  void event(const RecordView& record, std::int64_t schema_key, CopyStream& out);

 private:
  void capture(const RecordView::Extra& capture, CopyStream& out);
  void text(std::string_view text, CopyStream& out);
  void optional_text(const std::optional<std::string>& text, CopyStream& out);
  void json(std::string_view json_text, CopyStream& out);

  std::int64_t session_id_;
  std::int64_t writer_key_;
  std::string text_;  // scratch, kept for its memory
  std::string captured_;
};

/// Whole rows of one writer.
class CopyEncoder {
 public:
  /// Throws ValueError when an id is not a UUID.
  CopyEncoder(const SessionInfo& session, const WriterInfo& writer, std::int64_t session_id,
              std::int64_t writer_key)
      : encoder_(session, writer), columns_(session_id, writer_key) {}

  const CopyColumns& columns() const { return columns_; }

  /// Append a record's row; see CopyColumns.
  void step(const RecordView& record, std::int64_t schema_key, const rows::Columns& columns,
            std::string_view episode, CopyStream& out) {
    columns_.step(record, schema_key, columns, episode, out);
    bytes(record, out);
  }
  void scalars(const RecordView& record, std::int64_t schema_key, CopyStream& out) {
    columns_.scalars(record, schema_key, out);
    bytes(record, out);
  }
  void event(const RecordView& record, std::int64_t schema_key, CopyStream& out) {
    columns_.event(record, schema_key, out);
    bytes(record, out);
  }
  /// The canonical bytes of the record whose row was appended last.
  std::span<const std::byte> record() const { return record_; }

 private:
  void bytes(const RecordView& record, CopyStream& out);

  CborEncoder encoder_;
  CopyColumns columns_;
  std::vector<std::byte> record_;  // scratch, kept for its memory
};

}  // namespace rubriscope::postgres
