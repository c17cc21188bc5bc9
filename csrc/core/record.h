// The record: what a producer writes into the journal and every sink reads. See docs/formats.md.
//
//   RecordHeader (80 bytes) | double score[n] | uint64 duration_ns[n] | uint8 status[n], padded to 8 |
//   extras: {ExtraHeader, bytes, padded to 8}…
//
// Little-endian, 8-byte aligned, so a mapped journal is read in place.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string_view>

#include "rubriscope/core/schema.h"

namespace rubriscope {

/// The numbers in between are the ledger's own entries (ledger/log.h): records and entries share a key.
enum class RecordKind : std::uint16_t {
  snapshot = 1,     ///< a call of an observed rubric tree
  scalars = 2,      ///< recorder.log()
  observation = 7,  ///< of a sight point
  span = 8,         ///< a span or an event of a trace
  checkpoint = 9,   ///< a file of a model, tied to a step
};

/// Whether records of a kind are events: a name, numbers and texts by a schema of Kind::event.
constexpr bool is_event(RecordKind kind) {
  return kind == RecordKind::observation || kind == RecordKind::span || kind == RecordKind::checkpoint;
}

/// "snapshot", "scalars", "observation", "span" or "checkpoint"; "" for a number that is no kind.
std::string_view kind_name(RecordKind kind);
/// The kind of a name. Throws ValueError.
RecordKind kind_of_name(std::string_view name);

/// How what an event tells of ended.
enum class Outcome : std::uint32_t { success = 0, error = 1, blocked = 2 };
inline constexpr std::uint32_t kOutcomes = 3;

/// "success", "error" or "blocked".
std::string_view outcome_name(Outcome outcome);
/// The outcome of a name. Throws ValueError.
Outcome outcome_of_name(std::string_view name);

/// A node's outcome in one call.
enum class Status : std::uint8_t {
  skipped = 0,  ///< not reached in this call
  scored = 1,
  failed = 2,   ///< raised, or its score was not a finite number
  pending = 3,  ///< the score is still on a device; never in a journal
};

inline constexpr std::int64_t kNoGroup = std::numeric_limits<std::int64_t>::min();
inline constexpr std::int32_t kNoSample = -1;

struct RecordHeader {
  static constexpr std::uint32_t kCommitted =
      1;  ///< low bits of length_and_state; lengths are multiples of 8
  static constexpr std::uint32_t kReserved = 2;
  static constexpr std::uint32_t kStateMask = 7;

  std::uint32_t length_and_state;  ///< bytes of the whole record | state
  std::uint32_t checksum;          ///< checksum() of bytes 8 … length
  RecordKind kind;
  std::uint16_t slots;  ///< n, the length of the arrays
  std::uint32_t schema;
  std::uint64_t sequence;     ///< from 0, without gaps in what was accepted by one writer
  std::int64_t time_ns;       ///< wall clock at the end of the call
  std::int64_t monotonic_ns;  ///< monotonic clock at the end of the call
  std::int64_t step;
  std::int64_t group;   ///< kNoGroup when there is none
  std::int32_t sample;  ///< kNoSample when there is none
  std::uint32_t thread;
  std::uint32_t extras_bytes;
  Outcome outcome;            ///< of an event, else 0
  std::uint64_t duration_ns;  ///< of what an event tells of, else 0

  std::uint32_t length() const { return length_and_state & ~kStateMask; }
  std::uint32_t state() const { return length_and_state & kStateMask; }
};
static_assert(sizeof(RecordHeader) == 80);

enum class ExtraTag : std::uint8_t {
  episode = 1,         ///< the episode's name
  action = 2,          ///< a capture; `form` says of what
  observation = 3,     ///< a capture
  explanation = 4,     ///< of slot: why this score
  reason = 5,          ///< of slot: why it failed
  metadata = 6,        ///< JSON object: the call's annotations
  score_metadata = 7,  ///< of slot: JSON object, rs.Score(..., **metadata)
  calls = 8,           ///< of slot: decimal count, where a node was called more than once
  field = 9,           ///< of an event: `slot` counts the schema's fields, `form` is a CaptureForm
  sealed = 10,         ///< the rest of the record, encrypted (vault/sealer.h); there are no arrays then
};

/// What a captured value was.
enum class CaptureForm : std::uint8_t {
  text = 0,     ///< a string as it was
  integer = 1,  ///< decimal digits
  real = 2,     ///< shortest round-trip decimal; "nan", "inf", "-inf"
  repr = 3,     ///< repr() of anything else; tensors and arrays as shape, dtype and device
  bytes = 4,    ///< in fields only
  json = 5,     ///< in fields only
};
inline constexpr std::uint8_t kCaptureCut = 0x80;  ///< set in `form` when the text was cut

struct ExtraHeader {
  ExtraTag tag;
  std::uint8_t form;  ///< CaptureForm | kCaptureCut for captures and fields, else 0
  std::uint16_t slot;
  std::uint32_t bytes;  ///< without padding
};
static_assert(sizeof(ExtraHeader) == 8);

constexpr std::size_t padded(std::size_t bytes) { return (bytes + 7) & ~std::size_t{7}; }

constexpr std::size_t arrays_bytes(std::size_t slots) { return slots * 16 + padded(slots); }

/// A record read in place. Borrowed memory: valid while the journal segment (or buffer) is.
struct RecordView {
  const RecordHeader* header{};
  const Schema* schema{};

  const double* scores() const { return reinterpret_cast<const double*>(header + 1); }
  const std::uint64_t* durations_ns() const {
    return reinterpret_cast<const std::uint64_t*>(scores() + header->slots);
  }
  const Status* statuses() const { return reinterpret_cast<const Status*>(durations_ns() + header->slots); }
  const std::byte* extras() const {
    return reinterpret_cast<const std::byte*>(header + 1) + arrays_bytes(header->slots);
  }

  struct Extra {
    ExtraTag tag;
    std::uint8_t form;
    std::uint16_t slot;
    std::string_view text;
  };

  /// Calls visit(Extra) for each extra, in the order written.
  template <class Visit>
  void for_each_extra(Visit&& visit) const {
    const std::byte* at = extras();
    const std::byte* const end = at + header->extras_bytes;
    while (at + sizeof(ExtraHeader) <= end) {
      ExtraHeader extra;
      std::memcpy(&extra, at, sizeof extra);
      at += sizeof extra;
      if (extra.bytes > static_cast<std::size_t>(end - at)) return;
      visit(Extra{extra.tag, extra.form, extra.slot, {reinterpret_cast<const char*>(at), extra.bytes}});
      at += padded(extra.bytes);
    }
  }

  /// Whether all but the header is encrypted.
  bool is_sealed() const {
    return header->slots == 0 && header->extras_bytes >= sizeof(ExtraHeader) &&
           reinterpret_cast<const ExtraHeader*>(extras())->tag == ExtraTag::sealed;
  }

  /// Whether the arrays are of a schema's length; of a sealed record nobody can tell.
  bool fits(const Schema& of) const { return is_sealed() || header->slots == of.slots.size(); }

  /// The first extra with this tag, or an empty text.
  std::string_view extra(ExtraTag tag) const {
    std::string_view found;
    for_each_extra([&](const Extra& e) {
      if (e.tag == tag && found.data() == nullptr) found = e.text;
    });
    return found;
  }
};

/// CRC-32C based checksum of a record body (three interleaved CRC lanes folded into one).
std::uint32_t checksum(const void* data, std::size_t bytes);

/// Whether the bytes at `header` are a complete record: plausible sizes, inside `available`, checksum right.
bool record_is_valid(const RecordHeader* header, std::size_t available);

}  // namespace rubriscope
