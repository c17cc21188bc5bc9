#include "rubriscope/core/cbor.h"

#include <algorithm>
#include <bit>
#include <charconv>
#include <cmath>
#include <cstring>
#include <optional>

#include "rubriscope/core/captured.h"
#include "rubriscope/core/errors.h"
#include "rubriscope/core/json.h"

namespace rubriscope {
namespace {

constexpr std::uint64_t kFormatVersion = 1;
constexpr int kMaxDepth = 16;

enum Key : std::uint64_t {
  kVersion = 0,
  kKind = 1,
  kSession = 2,
  kWriter = 3,
  kSequence = 4,
  kSchema = 5,
  kTime = 6,
  kMonotonic = 7,
  kThread = 8,
  kEpisode = 9,
  kStep = 10,
  kGroup = 11,
  kSample = 12,
  kScores = 13,
  kStatuses = 14,
  kDurations = 15,
  kAction = 16,
  kObservation = 17,
  kForms = 18,
  kExplanations = 19,
  kReasons = 20,
  kMetadata = 21,
  kScoreMetadata = 22,
  kCalls = 23,
};

// The extras kept by slot, in the order of their keys.
constexpr std::array<ExtraTag, 4> kSlotTags = {ExtraTag::explanation, ExtraTag::reason,
                                               ExtraTag::score_metadata, ExtraTag::calls};
constexpr std::array<Key, 4> kSlotKeys = {kExplanations, kReasons, kScoreMetadata, kCalls};

std::byte* put_raw(std::byte* at, const void* from, std::size_t bytes) {
  if (bytes != 0) std::memcpy(at, from, bytes);
  return at + bytes;
}

template <class Unsigned>
std::byte* put_big_endian(std::byte* at, Unsigned value) {
  for (int shift = 8 * (static_cast<int>(sizeof(Unsigned)) - 1); shift >= 0; shift -= 8) {
    *at++ = static_cast<std::byte>(value >> shift);
  }
  return at;
}

std::byte* put_key(std::byte* at, Key key) {
  *at = static_cast<std::byte>(key);  // below 24, so one byte of major type 0
  return at + 1;
}

std::byte* put_bytes(std::byte* at, const UuidBytes& bytes) {
  *at++ = std::byte{0x50};  // a byte string of 16
  return put_raw(at, bytes.data(), bytes.size());
}

/// CBOR text must be UTF-8, and a capture may hold anything.
std::byte* put_text(std::byte* at, std::string_view text, std::string& scratch) {
  if (!is_valid_utf8(text)) {
    scratch.clear();
    append_valid_utf8(scratch, text);
    text = scratch;
  }
  at = cbor::put_head(at, cbor::Major::text_string, text.size());
  return put_raw(at, text.data(), text.size());
}

/// The decimal number of a call count.
std::optional<std::uint64_t> parse_count(std::string_view text) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

/// An integer of 64 bits and a float become CBOR numbers; anything else stays text, and the form tells.
std::byte* put_capture(std::byte* at, const RecordView::Extra& capture, std::string& scratch) {
  if (const auto integer = captured_integer(capture.text, capture.form))
    return cbor::put_integer(at, *integer);
  if (const auto real = captured_real(capture.text, capture.form)) return cbor::put_real(at, *real);
  return put_text(at, capture.text, scratch);
}

double half_to_double(std::uint16_t half) {
  const int exponent = half >> 10 & 31;
  const int mantissa = half & 1023;
  double value;
  if (exponent == 0) {
    value = std::ldexp(mantissa, -24);
  } else if (exponent == 31) {
    value =
        mantissa == 0 ? std::numeric_limits<double>::infinity() : std::numeric_limits<double>::quiet_NaN();
  } else {
    value = std::ldexp(mantissa + 1024, exponent - 25);
  }
  return half & 0x8000 ? -value : value;
}

/// The half-precision bits that equal `value`, if there are any. `value` is finite.
std::optional<std::uint16_t> exact_half(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const auto sign = static_cast<std::uint16_t>(bits >> 16 & 0x8000);
  const int exponent = static_cast<int>(bits >> 23 & 255);
  const std::uint32_t mantissa = bits & 0x7FFFFF;
  if (exponent == 0 && mantissa == 0) return sign;
  if (exponent >= 113 && exponent <= 142) {
    if (mantissa & 0x1FFF) return std::nullopt;
    return static_cast<std::uint16_t>(sign | (exponent - 112) << 10 | mantissa >> 13);
  }
  if (exponent >= 103 && exponent <= 112) {  // a subnormal half counts units of 2^-24
    const std::uint32_t full = mantissa | 0x800000;
    const int shift = 126 - exponent;
    if (full & ((1U << shift) - 1)) return std::nullopt;
    return static_cast<std::uint16_t>(sign | full >> shift);
  }
  return std::nullopt;
}

}  // namespace

UuidBytes uuid_bytes(std::string_view text) {
  const auto digit = [](char c) -> int {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
  };
  const auto refuse = [&] {
    throw ValueError("expected a UUID of 36 characters, got \"" + std::string(text) + "\"");
  };
  if (text.size() != 36) refuse();
  UuidBytes bytes{};
  std::size_t at = 0;
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) {
      if (text[at++] != '-') refuse();
    }
    const int high = digit(text[at]);
    const int low = digit(text[at + 1]);
    if (high < 0 || low < 0) refuse();
    bytes[i] = static_cast<std::byte>(high << 4 | low);
    at += 2;
  }
  return bytes;
}

std::string uuid_text(std::span<const std::byte, 16> bytes) {
  constexpr char hex[] = "0123456789abcdef";
  std::string text;
  text.reserve(36);
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) text += '-';
    text += hex[std::to_integer<int>(bytes[i]) >> 4];
    text += hex[std::to_integer<int>(bytes[i]) & 15];
  }
  return text;
}

namespace cbor {

std::byte* put_head(std::byte* at, Major major, std::uint64_t argument) {
  const auto type = static_cast<std::uint8_t>(static_cast<std::uint8_t>(major) << 5);
  if (argument < 24) {
    *at = static_cast<std::byte>(type | argument);
    return at + 1;
  }
  if (argument <= 0xFF) {
    *at++ = static_cast<std::byte>(type | 24);
    return put_big_endian(at, static_cast<std::uint8_t>(argument));
  }
  if (argument <= 0xFFFF) {
    *at++ = static_cast<std::byte>(type | 25);
    return put_big_endian(at, static_cast<std::uint16_t>(argument));
  }
  if (argument <= 0xFFFFFFFF) {
    *at++ = static_cast<std::byte>(type | 26);
    return put_big_endian(at, static_cast<std::uint32_t>(argument));
  }
  *at++ = static_cast<std::byte>(type | 27);
  return put_big_endian(at, argument);
}

std::byte* put_integer(std::byte* at, std::int64_t value) {
  if (value >= 0) return put_head(at, Major::unsigned_integer, static_cast<std::uint64_t>(value));
  return put_head(at, Major::negative_integer, static_cast<std::uint64_t>(-(value + 1)));
}

std::byte* put_real(std::byte* at, double value) {
  const auto single = static_cast<float>(value);
  if (static_cast<double>(single) != value && value == value) {
    *at++ = std::byte{0xFB};
    return put_big_endian(at, std::bit_cast<std::uint64_t>(value));
  }
  std::optional<std::uint16_t> half;
  if (value != value) {
    half = 0x7E00;
  } else if (std::isinf(single)) {
    half = single > 0 ? 0x7C00 : 0xFC00;
  } else {
    half = exact_half(single);
  }
  if (half) {
    *at++ = std::byte{0xF9};
    return put_big_endian(at, *half);
  }
  *at++ = std::byte{0xFA};
  return put_big_endian(at, std::bit_cast<std::uint32_t>(single));
}

void Reader::fail(const char* what) const {
  throw FormatError(std::string("CBOR record: expected ") + what + ", " + std::to_string(left()) +
                    " bytes before the end");
}

Major Reader::peek() const {
  if (at_ == end_) fail("a data item");
  return static_cast<Major>(std::to_integer<std::uint8_t>(*at_) >> 5);
}

template <class Unsigned>
Unsigned Reader::big_endian() {
  if (left() < sizeof(Unsigned)) fail("the rest of a head");
  Unsigned value;
  std::memcpy(&value, at_, sizeof value);
  at_ += sizeof value;
  if constexpr (std::endian::native == std::endian::big || sizeof value == 1) {
    return value;
  } else if constexpr (sizeof value == 2) {
    return __builtin_bswap16(value);
  } else if constexpr (sizeof value == 4) {
    return __builtin_bswap32(value);
  } else {
    return __builtin_bswap64(value);
  }
}

Reader::Head Reader::head() {
  if (at_ == end_) fail("a data item");
  const auto initial = std::to_integer<std::uint8_t>(*at_++);
  Head head{static_cast<Major>(initial >> 5), static_cast<std::uint8_t>(initial & 31), 0};
  if (head.info < 24) {
    head.argument = head.info;
    return head;
  }
  switch (head.info) {
    case 24:
      head.argument = big_endian<std::uint8_t>();
      break;
    case 25:
      head.argument = big_endian<std::uint16_t>();
      break;
    case 26:
      head.argument = big_endian<std::uint32_t>();
      break;
    case 27:
      head.argument = big_endian<std::uint64_t>();
      break;
    default:
      fail("a definite length");
  }
  return head;
}

std::uint64_t Reader::count(Major major, const char* what) {
  if (at_ == end_ || peek() != major) fail(what);
  return head().argument;
}

std::uint64_t Reader::unsigned_integer(const char* what) { return count(Major::unsigned_integer, what); }

std::int64_t Reader::integer(const char* what) {
  const Head read = head();
  if (read.argument > 0x7FFFFFFFFFFFFFFFULL) fail(what);
  if (read.major == Major::unsigned_integer) return static_cast<std::int64_t>(read.argument);
  if (read.major != Major::negative_integer) fail(what);
  return -1 - static_cast<std::int64_t>(read.argument);
}

std::string_view Reader::chunk(Major major, const char* what) {
  const std::uint64_t length = count(major, what);
  if (length > left()) fail(what);
  const std::string_view found(reinterpret_cast<const char*>(at_), length);
  at_ += length;
  return found;
}

double Reader::real(const char* what) {
  const Head read = head();
  if (read.major != Major::simple) fail(what);
  switch (read.info) {
    case 25:
      return half_to_double(static_cast<std::uint16_t>(read.argument));
    case 26:
      return std::bit_cast<float>(static_cast<std::uint32_t>(read.argument));
    case 27:
      return std::bit_cast<double>(read.argument);
    default:
      fail(what);
  }
}

double Reader::real_or_null(double none, const char* what) {
  if (at_ != end_ && *at_ == kNull) {
    ++at_;
    return none;
  }
  return real(what);
}

void Reader::skip_numbers(Major major, std::uint64_t count, const char* what) {
  // What follows the initial byte, by its low five bits.
  static constexpr std::array<std::uint8_t, 32> following = [] {
    std::array<std::uint8_t, 32> table{};
    table[24] = 1;
    table[25] = 2;
    table[26] = 4;
    table[27] = 8;
    return table;
  }();
  const std::byte* at = at_;
  for (std::uint64_t i = 0; i < count; ++i) {
    if (at >= end_) fail(what);
    const auto initial = std::to_integer<std::uint8_t>(*at);
    if (initial >> 5 != static_cast<std::uint8_t>(major) || (initial & 31) > 27) fail(what);
    at += 1 + following[initial & 31];
  }
  if (at > end_) fail(what);
  at_ = at;
}

void Reader::skip(int depth) {
  if (depth > kMaxDepth) fail("less nesting");
  const Head read = head();
  switch (read.major) {
    case Major::byte_string:
    case Major::text_string:
      if (read.argument > left()) fail("the rest of a string");
      at_ += read.argument;
      return;
    case Major::array:
      for (std::uint64_t i = 0; i < read.argument; ++i) skip(depth + 1);
      return;
    case Major::map:
      for (std::uint64_t i = 0; i < read.argument; ++i) {
        skip(depth + 1);
        skip(depth + 1);
      }
      return;
    case Major::tag:
      skip(depth + 1);
      return;
    default:
      return;
  }
}

}  // namespace cbor

CborEncoder::CborEncoder(const SessionInfo& session, const WriterInfo& writer)
    : session_(uuid_bytes(session.id)), writer_(uuid_bytes(writer.id)) {}

void CborEncoder::encode(const RecordView& record, std::vector<std::byte>& out) {
  using cbor::Major;
  const RecordHeader& header = *record.header;
  const std::size_t slots = header.slots;
  const bool snapshot = header.kind == RecordKind::snapshot;

  RecordView::Extra episode{};
  RecordView::Extra action{};
  RecordView::Extra observation{};
  RecordView::Extra metadata{};
  bool any_by_slot = false;
  if (header.extras_bytes != 0) {
    record.for_each_extra([&](const RecordView::Extra& extra) {
      const auto keep_first = [&extra](RecordView::Extra& kept) {
        if (kept.text.data() == nullptr) kept = extra;
      };
      switch (extra.tag) {
        case ExtraTag::episode:
          return keep_first(episode);
        case ExtraTag::action:
          return keep_first(action);
        case ExtraTag::observation:
          return keep_first(observation);
        case ExtraTag::metadata:
          return keep_first(metadata);
        default:
          break;
      }
      for (std::size_t i = 0; i < kSlotTags.size(); ++i) {
        if (extra.tag != kSlotTags[i]) continue;
        if (!any_by_slot) {
          for (auto& list : by_slot_) list.clear();
        }
        any_by_slot = true;
        by_slot_[i].push_back(extra);
      }
    });
  }
  if (any_by_slot) {
    for (auto& list : by_slot_) {
      // Map keys ascend and are unique; a node called twice keeps what its last call said, as its score does.
      std::stable_sort(list.begin(), list.end(),
                       [](const auto& a, const auto& b) { return a.slot < b.slot; });
      std::size_t kept = 0;
      for (const auto& extra : list) {
        if (kept != 0 && list[kept - 1].slot == extra.slot) --kept;
        list[kept++] = extra;
      }
      list.resize(kept);
    }
  }

  const bool forms = action.form != 0 || observation.form != 0;
  std::size_t keys = 12 + snapshot;  // version … thread, step, scores, statuses, and durations
  keys += (episode.text.data() != nullptr) + (header.group != kNoGroup) + (header.sample != kNoSample) +
          (action.text.data() != nullptr) + (observation.text.data() != nullptr) + forms +
          (metadata.text.data() != nullptr);
  if (any_by_slot) {
    for (const auto& list : by_slot_) keys += !list.empty();
  }

  // Every head is at most 9 bytes, and a byte of text becomes at most 3 (U+FFFD).
  const std::size_t start = out.size();
  out.resize(start + 256 + slots * 19 + std::size_t{header.extras_bytes} * 3);
  std::byte* at = out.data() + start;

  at = cbor::put_head(at, Major::map, keys);
  at = cbor::put_head(put_key(at, kVersion), Major::unsigned_integer, kFormatVersion);
  at = cbor::put_head(put_key(at, kKind), Major::unsigned_integer, static_cast<std::uint64_t>(header.kind));
  at = put_bytes(put_key(at, kSession), session_);
  at = put_bytes(put_key(at, kWriter), writer_);
  at = cbor::put_head(put_key(at, kSequence), Major::unsigned_integer, header.sequence);
  at = cbor::put_head(put_key(at, kSchema), Major::unsigned_integer, header.schema);
  at = cbor::put_integer(put_key(at, kTime), header.time_ns);
  at = cbor::put_integer(put_key(at, kMonotonic), header.monotonic_ns);
  at = cbor::put_head(put_key(at, kThread), Major::unsigned_integer, header.thread);
  if (episode.text.data() != nullptr) at = put_text(put_key(at, kEpisode), episode.text, scratch_);
  at = cbor::put_integer(put_key(at, kStep), header.step);
  if (header.group != kNoGroup) at = cbor::put_integer(put_key(at, kGroup), header.group);
  if (header.sample != kNoSample) at = cbor::put_integer(put_key(at, kSample), header.sample);

  const double* const scores = record.scores();
  const Status* const statuses = record.statuses();
  at = cbor::put_head(put_key(at, kScores), Major::array, slots);
  for (std::size_t i = 0; i < slots; ++i) {
    if (statuses[i] == Status::scored) {
      at = cbor::put_real(at, scores[i]);
    } else {
      *at++ = cbor::kNull;
    }
  }
  at = cbor::put_head(put_key(at, kStatuses), Major::byte_string, slots);
  at = put_raw(at, statuses, slots);
  if (snapshot) {
    const std::uint64_t* const durations = record.durations_ns();
    at = cbor::put_head(put_key(at, kDurations), Major::array, slots);
    for (std::size_t i = 0; i < slots; ++i) at = cbor::put_head(at, Major::unsigned_integer, durations[i]);
  }
  if (action.text.data() != nullptr) at = put_capture(put_key(at, kAction), action, scratch_);
  if (observation.text.data() != nullptr) at = put_capture(put_key(at, kObservation), observation, scratch_);
  if (forms) {
    at = cbor::put_head(put_key(at, kForms), Major::array, 2);
    at = cbor::put_head(at, Major::unsigned_integer, action.form);
    at = cbor::put_head(at, Major::unsigned_integer, observation.form);
  }
  for (std::size_t i = 0; i < kSlotKeys.size(); ++i) {
    if (kSlotKeys[i] == kScoreMetadata && metadata.text.data() != nullptr) {
      at = put_text(put_key(at, kMetadata), metadata.text, scratch_);
    }
    if (!any_by_slot || by_slot_[i].empty()) continue;
    at = cbor::put_head(put_key(at, kSlotKeys[i]), Major::map, by_slot_[i].size());
    for (const auto& extra : by_slot_[i]) {
      at = cbor::put_head(at, Major::unsigned_integer, extra.slot);
      const auto calls = kSlotKeys[i] == kCalls ? parse_count(extra.text) : std::optional<std::uint64_t>();
      at = calls ? cbor::put_head(at, Major::unsigned_integer, *calls) : put_text(at, extra.text, scratch_);
    }
  }
  out.resize(static_cast<std::size_t>(at - out.data()));
}

void encode_cbor(const RecordView& record, const SessionInfo& session, const WriterInfo& writer,
                 std::vector<std::byte>& out) {
  CborEncoder(session, writer).encode(record, out);
}

namespace {

/// Reads the map's keys in order; each at most once.
class RecordReader {
 public:
  explicit RecordReader(std::span<const std::byte> bytes)
      : reader(bytes), left_(reader.count(cbor::Major::map, "a map")) {
    next();
  }

  /// Whether `key` is next; then its value is to be read from `reader`, and done() called.
  bool at(Key key) const { return key_ == key; }
  void require(Key key, const char* what) const {
    if (key_ != key) {
      throw FormatError("CBOR record: expected key " + std::to_string(key) + " (" + what + "), found " +
                        (key_ == kNone ? std::string("the end of the map") : "key " + std::to_string(key_)));
    }
  }
  void done() { next(); }
  bool finished() const { return key_ == kNone; }
  std::uint64_t key() const { return key_; }

  cbor::Reader reader;

 private:
  static constexpr std::uint64_t kNone = ~std::uint64_t{0};

  void next() {
    if (left_ == 0) {
      key_ = kNone;
      return;
    }
    --left_;
    key_ = reader.unsigned_integer("an integer key");
  }

  std::uint64_t left_;
  std::uint64_t key_{kNone};
};

template <class Integer>
Integer narrow(std::int64_t value, const char* what) {
  if (value < static_cast<std::int64_t>(std::numeric_limits<Integer>::min()) ||
      value > static_cast<std::int64_t>(std::numeric_limits<Integer>::max())) {
    throw FormatError(std::string("CBOR record: ") + what + " " + std::to_string(value) + " is out of range");
  }
  return static_cast<Integer>(value);
}

CborFields read_fields(RecordReader& record) {
  cbor::Reader& reader = record.reader;
  CborFields fields;
  record.require(kVersion, "format version");
  const std::uint64_t version = reader.unsigned_integer("the format version");
  if (version != kFormatVersion) {
    throw FormatError("CBOR record of format version " + std::to_string(version) +
                      ", this build reads version " + std::to_string(kFormatVersion));
  }
  record.done();
  record.require(kKind, "kind");
  const std::uint64_t kind = reader.unsigned_integer("the kind");
  if (kind != 1 && kind != 2)
    throw FormatError("CBOR record: kind must be 1 or 2, found " + std::to_string(kind));
  fields.kind = static_cast<RecordKind>(kind);
  record.done();
  const auto uuid = [&](Key key, const char* what) {
    record.require(key, what);
    const std::string_view id = reader.bytes(what);
    if (id.size() != 16) throw FormatError(std::string("CBOR record: ") + what + " must be 16 bytes");
    record.done();
    return id;
  };
  fields.session = uuid(kSession, "session id");
  fields.writer = uuid(kWriter, "writer id");
  const auto integer = [&](Key key, const char* what) {
    record.require(key, what);
    const std::int64_t value = reader.integer(what);
    record.done();
    return value;
  };
  record.require(kSequence, "sequence");
  fields.sequence = reader.unsigned_integer("sequence");
  record.done();
  fields.schema = narrow<std::uint32_t>(integer(kSchema, "schema"), "schema");
  fields.time_ns = integer(kTime, "time");
  fields.monotonic_ns = integer(kMonotonic, "monotonic time");
  fields.thread = narrow<std::uint32_t>(integer(kThread, "thread"), "thread");
  if (record.at(kEpisode)) {
    fields.episode = reader.text("the episode");
    record.done();
  }
  fields.step = integer(kStep, "step");
  if (record.at(kGroup)) fields.group = integer(kGroup, "group");
  if (record.at(kSample)) fields.sample = narrow<std::int32_t>(integer(kSample, "sample"), "sample");
  record.require(kScores, "scores");
  fields.slots = reader.count(cbor::Major::array, "an array of scores");
  if (fields.slots > 0xFFFF) throw FormatError("CBOR record: more than 65535 slots");
  const char* const from = reinterpret_cast<const char*>(reader.position());
  reader.skip_numbers(cbor::Major::simple, fields.slots, "a score");
  fields.scores = {from, static_cast<std::size_t>(reinterpret_cast<const char*>(reader.position()) - from)};
  record.done();
  record.require(kStatuses, "statuses");
  fields.statuses = reader.bytes("a byte string of statuses");
  if (fields.statuses.size() != fields.slots) {
    throw FormatError("CBOR record: " + std::to_string(fields.slots) + " scores but " +
                      std::to_string(fields.statuses.size()) + " statuses");
  }
  fields.rest = {reinterpret_cast<const char*>(reader.position()), reader.left()};
  return fields;
}

void append_extra(std::string& extras, ExtraTag tag, std::uint8_t form, std::uint16_t slot,
                  std::string_view text) {
  ExtraHeader header{tag, form, slot, static_cast<std::uint32_t>(text.size())};
  extras.append(reinterpret_cast<const char*>(&header), sizeof header);
  extras += text;
  extras.resize(padded(extras.size()));
}

}  // namespace

double CborFields::score(std::size_t slot) const {
  cbor::Reader reader(std::as_bytes(std::span(scores)));
  reader.skip_numbers(cbor::Major::simple, slot, "a score");
  return reader.real_or_null(std::numeric_limits<double>::quiet_NaN(), "a score");
}

namespace {

/// At the first of the durations.
cbor::Reader durations_of(const CborFields& fields) {
  cbor::Reader reader(std::as_bytes(std::span(fields.rest)));
  if (reader.unsigned_integer("a key") != kDurations ||
      reader.count(cbor::Major::array, "an array of durations") != fields.slots) {
    throw FormatError("CBOR record: expected durations after the statuses");
  }
  return reader;
}

}  // namespace

void CborFields::read_durations(std::uint64_t* out) const {
  if (kind != RecordKind::snapshot) {
    std::fill_n(out, slots, 0);
    return;
  }
  cbor::Reader reader = durations_of(*this);
  for (std::size_t i = 0; i < slots; ++i) out[i] = reader.unsigned_integer("a duration");
}

std::uint64_t CborFields::duration_ns(std::size_t slot) const {
  if (kind != RecordKind::snapshot) return 0;
  cbor::Reader reader = durations_of(*this);
  reader.skip_numbers(cbor::Major::unsigned_integer, slot, "a duration");
  return reader.unsigned_integer("a duration");
}

void CborFields::read_scores(double* out) const {
  cbor::Reader reader(std::as_bytes(std::span(scores)));
  for (std::size_t i = 0; i < slots; ++i) {
    out[i] = reader.real_or_null(std::numeric_limits<double>::quiet_NaN(), "a score");
  }
}

CborFields read_cbor_fields(std::span<const std::byte> bytes) {
  RecordReader record(bytes);
  return read_fields(record);
}

DecodedRecord decode_cbor(std::span<const std::byte> bytes) {
  RecordReader record(bytes);
  const CborFields fields = read_fields(record);
  record.done();
  cbor::Reader& reader = record.reader;

  std::vector<std::uint64_t> durations(fields.slots, 0);
  if (fields.kind == RecordKind::snapshot) {
    record.require(kDurations, "durations");
    if (reader.count(cbor::Major::array, "an array of durations") != fields.slots) {
      throw FormatError("CBOR record: scores and durations differ in number");
    }
    for (auto& duration : durations) duration = reader.unsigned_integer("a duration");
    record.done();
  }

  std::string extras;
  if (fields.episode.data() != nullptr) append_extra(extras, ExtraTag::episode, 0, 0, fields.episode);
  struct Capture {
    bool present{false};
    std::string text;
  };
  std::array<Capture, 2> captures;
  for (std::size_t i = 0; i < captures.size(); ++i) {
    if (!record.at(i == 0 ? kAction : kObservation)) continue;
    Capture& capture = captures[i];
    capture.present = true;
    switch (reader.peek()) {
      case cbor::Major::unsigned_integer:
      case cbor::Major::negative_integer:
        capture.text = std::to_string(reader.integer("a capture"));
        break;
      case cbor::Major::simple: {
        const double value = reader.real("a capture");
        if (std::isfinite(value)) {
          append_json_number(capture.text, value);
        } else {
          capture.text = std::isnan(value) ? "nan" : value > 0 ? "inf" : "-inf";
        }
        break;
      }
      default:
        capture.text = reader.text("a captured text or number");
    }
    record.done();
  }
  std::array<std::uint8_t, 2> forms{};
  if (record.at(kForms)) {
    if (reader.count(cbor::Major::array, "an array of forms") != forms.size()) {
      throw FormatError("CBOR record: expected two capture forms");
    }
    for (auto& form : forms) {
      form = narrow<std::uint8_t>(static_cast<std::int64_t>(reader.unsigned_integer("a form")), "form");
    }
    record.done();
  }
  constexpr std::array<ExtraTag, 2> capture_tags = {ExtraTag::action, ExtraTag::observation};
  for (std::size_t i = 0; i < captures.size(); ++i) {
    if (captures[i].present) append_extra(extras, capture_tags[i], forms[i], 0, captures[i].text);
  }
  for (std::size_t i = 0; i < kSlotKeys.size(); ++i) {
    if (kSlotKeys[i] == kScoreMetadata && record.at(kMetadata)) {
      append_extra(extras, ExtraTag::metadata, 0, 0, reader.text("metadata"));
      record.done();
    }
    if (!record.at(kSlotKeys[i])) continue;
    const std::uint64_t entries = reader.count(cbor::Major::map, "a map by slot");
    std::int64_t previous = -1;
    for (std::uint64_t entry = 0; entry < entries; ++entry) {
      const auto slot = static_cast<std::int64_t>(reader.unsigned_integer("a slot"));
      if (slot <= previous || slot > 0xFFFF) {
        throw FormatError("CBOR record: slots of a map must ascend, found " + std::to_string(slot) +
                          " after " + std::to_string(previous));
      }
      previous = slot;
      const bool number = reader.peek() == cbor::Major::unsigned_integer;
      const std::string count = number ? std::to_string(reader.unsigned_integer("a count")) : std::string();
      append_extra(extras, kSlotTags[i], 0, static_cast<std::uint16_t>(slot),
                   number ? std::string_view(count) : reader.text("a text"));
    }
    record.done();
  }
  if (!record.finished()) {
    throw FormatError("CBOR record: unknown or misplaced key " + std::to_string(record.key()));
  }
  if (!reader.at_end()) {
    throw FormatError("CBOR record: " + std::to_string(reader.left()) + " bytes after the end");
  }

  const std::size_t length = sizeof(RecordHeader) + arrays_bytes(fields.slots) + extras.size();
  DecodedRecord decoded;
  decoded.words.resize(length / 8);
  RecordHeader header{};
  header.length_and_state = static_cast<std::uint32_t>(length) | RecordHeader::kCommitted;
  header.kind = fields.kind;
  header.slots = static_cast<std::uint16_t>(fields.slots);
  header.schema = fields.schema;
  header.sequence = fields.sequence;
  header.time_ns = fields.time_ns;
  header.monotonic_ns = fields.monotonic_ns;
  header.step = fields.step;
  header.group = fields.group;
  header.sample = fields.sample;
  header.thread = fields.thread;
  header.extras_bytes = static_cast<std::uint32_t>(extras.size());
  auto* at = reinterpret_cast<std::byte*>(decoded.words.data());
  at = put_raw(at, &header, sizeof header);
  fields.read_scores(reinterpret_cast<double*>(at));
  at = put_raw(at + fields.slots * 8, durations.data(), fields.slots * 8);
  put_raw(at, fields.statuses.data(), fields.slots);
  put_raw(at + padded(fields.slots), extras.data(), extras.size());
  decoded.session_id = uuid_text(std::as_bytes(std::span<const char, 16>(fields.session.data(), 16)));
  decoded.writer_id = uuid_text(std::as_bytes(std::span<const char, 16>(fields.writer.data(), 16)));
  return decoded;
}

}  // namespace rubriscope
