// Records read from CBOR.
#include <cmath>
#include <limits>
#include <map>
#include <optional>
#include <utility>

#include "rubriscope/core/captured.h"
#include "rubriscope/core/cbor.h"
#include "rubriscope/core/cbor_keys.h"
#include "rubriscope/core/errors.h"
#include "rubriscope/core/json.h"

namespace rubriscope {

using namespace cbor;

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
  if (kind > 0xFFFF || kind_name(static_cast<RecordKind>(kind)).empty()) {
    throw FormatError("CBOR record: " + std::to_string(kind) + " is no kind of record");
  }
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
  if (record.at(kSealed)) {
    fields.sealed = reader.bytes("the sealed part");
    return fields;
  }
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

struct CapturedText {
  std::string_view text;
  CaptureForm form;  ///< as far as its type tells
};

/// A captured text, number or bytes, in the form that extras have; what is written out goes into `scratch`.
CapturedText read_capture(cbor::Reader& reader, std::string& scratch) {
  switch (reader.peek()) {
    case cbor::Major::unsigned_integer:
    case cbor::Major::negative_integer:
      scratch = std::to_string(reader.integer("a capture"));
      return {scratch, CaptureForm::integer};
    case cbor::Major::simple: {
      const double value = reader.real("a capture");
      scratch.clear();
      if (std::isfinite(value)) {
        append_json_number(scratch, value);
      } else {
        scratch = std::isnan(value) ? "nan" : value > 0 ? "inf" : "-inf";
      }
      return {scratch, CaptureForm::real};
    }
    case cbor::Major::byte_string:
      return {reader.bytes("bytes"), CaptureForm::bytes};
    default:
      return {reader.text("a captured text or number"), CaptureForm::text};
  }
}

void append_extra(std::vector<std::uint64_t>& words, ExtraTag tag, std::uint8_t form, std::uint16_t slot,
                  std::string_view text) {
  const ExtraHeader header{tag, form, slot, static_cast<std::uint32_t>(text.size())};
  const std::size_t from = words.size();
  words.resize(from + (sizeof header + padded(text.size())) / 8);
  auto* const at = reinterpret_cast<std::byte*>(words.data() + from);
  put_raw(put_raw(at, &header, sizeof header), text.data(), text.size());
}

/// The next key of a map by slot. Throws FormatError where it does not ascend.
std::int64_t next_slot(cbor::Reader& reader, std::int64_t previous) {
  const std::uint64_t slot = reader.unsigned_integer("a slot");
  if (slot > 0xFFFF || static_cast<std::int64_t>(slot) <= previous) {
    throw FormatError("CBOR record: slots of a map must ascend, found " + std::to_string(slot) + " after " +
                      std::to_string(previous));
  }
  return static_cast<std::int64_t>(slot);
}

/// An event's fields as extras.
void append_fields(RecordReader& record, std::vector<std::uint64_t>& words) {
  if (!record.at(kFields)) return;
  cbor::Reader& reader = record.reader;
  struct Field {
    std::string written;  // what its text is not borrowed from
    CapturedText value;
    std::uint8_t form;
  };
  std::map<std::int64_t, Field> found;
  const std::uint64_t entries = reader.count(cbor::Major::map, "a map of fields");
  std::int64_t slot = -1;
  for (std::uint64_t entry = 0; entry < entries; ++entry) {
    slot = next_slot(reader, slot);
    Field& field = found[slot];
    field.value = read_capture(reader, field.written);
    field.form = static_cast<std::uint8_t>(field.value.form);
  }
  record.done();
  if (record.at(kFieldForms)) {
    const std::uint64_t forms = reader.count(cbor::Major::map, "a map of forms");
    slot = -1;
    for (std::uint64_t entry = 0; entry < forms; ++entry) {
      slot = next_slot(reader, slot);
      const std::uint64_t form = reader.unsigned_integer("a form");
      const auto field = found.find(slot);
      if (field == found.end() || field->second.value.form != CaptureForm::text || form == 0 || form > 0xFF) {
        throw FormatError("CBOR record: a form of field " + std::to_string(slot) + ", which has none");
      }
      field->second.form = static_cast<std::uint8_t>(form);
    }
    record.done();
  }
  for (const auto& [place, field] : found) {
    append_extra(words, ExtraTag::field, field.form, static_cast<std::uint16_t>(place), field.value.text);
  }
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

void decode_cbor(std::span<const std::byte> bytes, DecodedRecord& decoded) {
  RecordReader record(bytes);
  const CborFields fields = read_fields(record);
  record.done();
  cbor::Reader& reader = record.reader;

  RecordHeader header{};
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
  write_uuid_text(decoded.session_id, std::as_bytes(std::span<const char, 16>(fields.session.data(), 16)));
  write_uuid_text(decoded.writer_id, std::as_bytes(std::span<const char, 16>(fields.writer.data(), 16)));

  std::vector<std::uint64_t>& words = decoded.words;
  const std::size_t arrays = sizeof header / 8;
  const std::size_t extras = arrays + arrays_bytes(fields.slots) / 8;
  words.clear();
  words.resize(extras);
  fields.read_scores(reinterpret_cast<double*>(words.data() + arrays));
  std::uint64_t* const durations = words.data() + arrays + fields.slots;
  put_raw(reinterpret_cast<std::byte*>(durations + fields.slots), fields.statuses.data(), fields.slots);
  const auto finish = [&] {
    header.extras_bytes = static_cast<std::uint32_t>((words.size() - extras) * 8);
    header.length_and_state = static_cast<std::uint32_t>(words.size() * 8) | RecordHeader::kCommitted;
    std::memcpy(words.data(), &header, sizeof header);
  };

  if (fields.sealed.data() != nullptr) {
    if (!record.finished() || !reader.at_end()) throw FormatError("CBOR record: more behind its sealed part");
    append_extra(words, ExtraTag::sealed, 0, 0, fields.sealed);
    return finish();
  }
  if (fields.kind == RecordKind::snapshot) {
    record.require(kDurations, "durations");
    if (reader.count(cbor::Major::array, "an array of durations") != fields.slots) {
      throw FormatError("CBOR record: scores and durations differ in number");
    }
    for (std::size_t i = 0; i < fields.slots; ++i) durations[i] = reader.unsigned_integer("a duration");
    record.done();
  }

  if (fields.episode.data() != nullptr) append_extra(words, ExtraTag::episode, 0, 0, fields.episode);
  struct Capture {
    bool present{false};
    std::string_view text;
    std::string written;  // what its text is not borrowed from
  };
  std::array<Capture, 2> captures;
  for (std::size_t i = 0; i < captures.size(); ++i) {
    if (!record.at(i == 0 ? kAction : kObservation)) continue;
    captures[i].present = true;
    captures[i].text = read_capture(reader, captures[i].written).text;
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
    if (captures[i].present) append_extra(words, capture_tags[i], forms[i], 0, captures[i].text);
  }
  for (std::size_t i = 0; i < kSlotKeys.size(); ++i) {
    if (kSlotKeys[i] == kScoreMetadata && record.at(kMetadata)) {
      append_extra(words, ExtraTag::metadata, 0, 0, reader.text("metadata"));
      record.done();
    }
    if (!record.at(kSlotKeys[i])) continue;
    const std::uint64_t entries = reader.count(cbor::Major::map, "a map by slot");
    std::int64_t slot = -1;
    for (std::uint64_t entry = 0; entry < entries; ++entry) {
      slot = next_slot(reader, slot);
      const bool number = reader.peek() == cbor::Major::unsigned_integer;
      const std::string count = number ? std::to_string(reader.unsigned_integer("a count")) : std::string();
      append_extra(words, kSlotTags[i], 0, static_cast<std::uint16_t>(slot),
                   number ? std::string_view(count) : reader.text("a text"));
    }
    record.done();
  }
  if (is_event(fields.kind)) {
    record.require(kDuration, "duration");
    header.duration_ns = reader.unsigned_integer("a duration");
    record.done();
    if (record.at(kOutcome)) {
      const std::uint64_t outcome = reader.unsigned_integer("an outcome");
      if (outcome == 0 || outcome >= kOutcomes) {
        throw FormatError("CBOR record: " + std::to_string(outcome) + " is no outcome");
      }
      header.outcome = static_cast<Outcome>(outcome);
      record.done();
    }
    append_fields(record, words);
  }
  if (!record.finished()) {
    throw FormatError("CBOR record: unknown or misplaced key " + std::to_string(record.key()));
  }
  if (!reader.at_end()) {
    throw FormatError("CBOR record: " + std::to_string(reader.left()) + " bytes after the end");
  }
  finish();
}

DecodedRecord decode_cbor(std::span<const std::byte> bytes) {
  DecodedRecord decoded;
  decode_cbor(bytes, decoded);
  return decoded;
}

}  // namespace rubriscope
