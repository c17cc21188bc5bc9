// The canonical bytes of a record: deterministic CBOR (RFC 8949 §4.2), laid out as docs/formats.md says. What
// is stored with every step, hashed by the ledger and read by the film.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "rubriscope/core/ids.h"
#include "rubriscope/core/record.h"

namespace rubriscope {

using UuidBytes = std::array<std::byte, 16>;

/// The 16 bytes of a UUID's 36-character text. Throws ValueError.
UuidBytes uuid_bytes(std::string_view text);
/// The 36-character text of 16 bytes.
std::string uuid_text(std::span<const std::byte, 16> bytes);
/// Likewise, in place of what `text` holds.
void write_uuid_text(std::string& text, std::span<const std::byte, 16> bytes);

namespace cbor {

enum class Major : std::uint8_t {
  unsigned_integer = 0,
  negative_integer = 1,
  byte_string = 2,
  text_string = 3,
  array = 4,
  map = 5,
  tag = 6,
  simple = 7,
};

inline constexpr std::byte kNull{0xF6};

/// Bytes as they are. Returns the end.
inline std::byte* put_raw(std::byte* at, const void* from, std::size_t bytes) {
  if (bytes != 0) std::memcpy(at, from, bytes);
  return at + bytes;
}

/// The head of a data item in its shortest form; at most 9 bytes. Returns the end.
std::byte* put_head(std::byte* at, Major major, std::uint64_t argument);
/// An integer of either sign; at most 9 bytes. Returns the end.
std::byte* put_integer(std::byte* at, std::int64_t value);
/// The shortest of half, single and double precision that keeps the value; at most 9 bytes. Returns the end.
std::byte* put_real(std::byte* at, double value);

/// Reads data items in order. Every method throws FormatError when the bytes are not what was asked for.
class Reader {
 public:
  explicit Reader(std::span<const std::byte> bytes) : at_(bytes.data()), end_(at_ + bytes.size()) {}

  struct Head {
    Major major;
    std::uint8_t info;  ///< the low five bits of the initial byte
    std::uint64_t argument;
  };

  bool at_end() const { return at_ == end_; }
  const std::byte* position() const { return at_; }
  std::size_t left() const { return static_cast<std::size_t>(end_ - at_); }

  /// The major type of the next item.
  Major peek() const;
  Head head();
  std::uint64_t count(Major major, const char* what);
  std::uint64_t unsigned_integer(const char* what);
  std::int64_t integer(const char* what);
  std::string_view bytes(const char* what) { return chunk(Major::byte_string, what); }
  std::string_view text(const char* what) { return chunk(Major::text_string, what); }
  /// A float of any width.
  double real(const char* what);
  /// A float, or `none` for null.
  double real_or_null(double none, const char* what);
  /// Skips numbers (or simple values) of one major type.
  void skip_numbers(Major major, std::uint64_t count, const char* what);
  /// Skips one item of any type.
  void skip(int depth = 0);

 private:
  [[noreturn]] void fail(const char* what) const;
  std::string_view chunk(Major major, const char* what);
  template <class Unsigned>
  Unsigned big_endian();

  const std::byte* at_;
  const std::byte* end_;
};

}  // namespace cbor

/// Encodes the records of one writer.
class CborEncoder {
 public:
  /// Throws ValueError when an id is not a UUID.
  CborEncoder(const SessionInfo& session, const WriterInfo& writer);

  /// Appends the canonical bytes of `record` to `out`.
  void encode(const RecordView& record, std::vector<std::byte>& out);

 private:
  void encode_sealed(const RecordView& record, std::vector<std::byte>& out) const;
  std::byte* put_identity(std::byte* at, const RecordHeader& header) const;

  UuidBytes session_;
  UuidBytes writer_;
  std::array<std::vector<RecordView::Extra>, 5> by_slot_;  // scratch, kept for its memory
  std::string scratch_;
};

/// Appends the canonical bytes of one record to `out`. A sink that encodes many keeps a CborEncoder.
void encode_cbor(const RecordView& record, const SessionInfo& session, const WriterInfo& writer,
                 std::vector<std::byte>& out);

/// The fields of an encoded record up to its scores, read without decoding the rest. Borrowed from the bytes.
struct CborFields {
  RecordKind kind{RecordKind::snapshot};
  std::string_view session;  ///< 16 bytes
  std::string_view writer;   ///< 16 bytes
  std::uint64_t sequence{};
  std::uint32_t schema{};
  std::int64_t time_ns{};
  std::int64_t monotonic_ns{};
  std::uint32_t thread{};
  std::string_view episode;  ///< data() is null where there is none
  std::int64_t step{};
  std::int64_t group{kNoGroup};
  std::int32_t sample{kNoSample};
  std::size_t slots{};
  std::string_view scores;    ///< the encoded array's items
  std::string_view statuses;  ///< one byte a slot
  std::string_view sealed;    ///< data() is null where nothing is; else there is nothing below
  std::string_view rest;      ///< what follows: the durations, in a snapshot

  /// The score of `slot`, NaN where there is none. Throws FormatError.
  double score(std::size_t slot) const;
  /// The duration of `slot`, 0 in a scalars record. Throws FormatError.
  std::uint64_t duration_ns(std::size_t slot) const;
  /// All durations into `out[slots]`. Throws FormatError.
  void read_durations(std::uint64_t* out) const;
  /// All scores, NaN where there is none, into `out[slots]`. Throws FormatError.
  void read_scores(double* out) const;
};

/// Throws FormatError when the bytes are not a record of a format version this build knows.
CborFields read_cbor_fields(std::span<const std::byte> bytes);

/// A record decoded back into the journal's layout. It owns its bytes.
struct DecodedRecord {
  std::vector<std::uint64_t> words;  ///< RecordHeader, arrays, extras
  SchemaPtr schema;                  ///< set by the caller: the bytes hold its number within the writer
  std::string session_id;
  std::string writer_id;

  RecordView view() const { return {reinterpret_cast<const RecordHeader*>(words.data()), schema.get()}; }
};

/// The inverse of encode_cbor(). Throws FormatError when the bytes are not a record in canonical order.
DecodedRecord decode_cbor(std::span<const std::byte> bytes);
/// Likewise into a record that is kept for its memory; its schema stays. When it throws, what is in it is
/// undefined.
void decode_cbor(std::span<const std::byte> bytes, DecodedRecord& decoded);

}  // namespace rubriscope
