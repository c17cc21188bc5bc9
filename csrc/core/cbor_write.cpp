// Records written as CBOR.
#include <algorithm>
#include <charconv>
#include <optional>

#include "rubriscope/core/captured.h"
#include "rubriscope/core/cbor.h"
#include "rubriscope/core/cbor_keys.h"
#include "rubriscope/core/json.h"

namespace rubriscope {

using namespace cbor;

namespace {

std::byte* put_key(std::byte* at, Key key) {
  if (key >= 24) *at++ = std::byte{24};  // below 24 one byte of major type 0, else two
  *at = static_cast<std::byte>(key);
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

constexpr auto kBytesForm = static_cast<std::uint8_t>(CaptureForm::bytes);

/// Whether an event's field is written as text, so that its form has to stand beside it.
bool is_text_field(const RecordView::Extra& field) {
  return field.form != kBytesForm && !captured_integer(field.text, field.form) &&
         !captured_real(field.text, field.form);
}

std::byte* put_field(std::byte* at, const RecordView::Extra& field, std::string& scratch) {
  if (field.form != kBytesForm) return put_capture(at, field, scratch);
  at = cbor::put_head(at, cbor::Major::byte_string, field.text.size());
  return put_raw(at, field.text.data(), field.text.size());
}

}  // namespace

CborEncoder::CborEncoder(const SessionInfo& session, const WriterInfo& writer)
    : session_(uuid_bytes(session.id)), writer_(uuid_bytes(writer.id)) {}

std::byte* CborEncoder::put_identity(std::byte* at, const RecordHeader& header) const {
  using cbor::Major;
  at = cbor::put_head(put_key(at, kVersion), Major::unsigned_integer, kFormatVersion);
  at = cbor::put_head(put_key(at, kKind), Major::unsigned_integer, static_cast<std::uint64_t>(header.kind));
  at = put_bytes(put_key(at, kSession), session_);
  at = put_bytes(put_key(at, kWriter), writer_);
  at = cbor::put_head(put_key(at, kSequence), Major::unsigned_integer, header.sequence);
  at = cbor::put_head(put_key(at, kSchema), Major::unsigned_integer, header.schema);
  at = cbor::put_integer(put_key(at, kTime), header.time_ns);
  at = cbor::put_integer(put_key(at, kMonotonic), header.monotonic_ns);
  return cbor::put_head(put_key(at, kThread), Major::unsigned_integer, header.thread);
}

namespace {

std::byte* put_place(std::byte* at, const RecordHeader& header) {
  at = cbor::put_integer(put_key(at, kStep), header.step);
  if (header.group != kNoGroup) at = cbor::put_integer(put_key(at, kGroup), header.group);
  if (header.sample != kNoSample) at = cbor::put_integer(put_key(at, kSample), header.sample);
  return at;
}

}  // namespace

void CborEncoder::encode_sealed(const RecordView& record, std::vector<std::byte>& out) const {
  const RecordHeader& header = *record.header;
  const std::string_view sealed = record.extra(ExtraTag::sealed);
  const std::size_t start = out.size();
  out.resize(start + 256 + sealed.size());
  std::byte* at = out.data() + start;
  const std::size_t keys = 11U + (header.group != kNoGroup) + (header.sample != kNoSample);
  at = put_place(put_identity(cbor::put_head(at, cbor::Major::map, keys), header), header);
  at = cbor::put_head(put_key(at, kSealed), cbor::Major::byte_string, sealed.size());
  at = put_raw(at, sealed.data(), sealed.size());
  out.resize(static_cast<std::size_t>(at - out.data()));
}

void CborEncoder::encode(const RecordView& record, std::vector<std::byte>& out) {
  if (record.is_sealed()) return encode_sealed(record, out);
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
    for (std::size_t i = 0; i < kSlotKeys.size(); ++i) keys += !by_slot_[i].empty();
  }
  std::size_t forms_of_fields = 0;
  if (is_event(header.kind)) {
    if (any_by_slot) {
      const auto& list = by_slot_[kFieldList];
      forms_of_fields = static_cast<std::size_t>(std::count_if(
          list.begin(), list.end(), [](const auto& f) { return f.form != 0 && is_text_field(f); }));
    }
    keys += 1 + (header.outcome != Outcome::success) + (any_by_slot && !by_slot_[kFieldList].empty()) +
            (forms_of_fields != 0);
  }

  // Every head is at most 9 bytes, and a byte of text becomes at most 3 (U+FFFD).
  const std::size_t start = out.size();
  out.resize(start + 256 + slots * 19 + std::size_t{header.extras_bytes} * 3);
  std::byte* at = out.data() + start;

  at = put_identity(cbor::put_head(at, Major::map, keys), header);
  if (episode.text.data() != nullptr) at = put_text(put_key(at, kEpisode), episode.text, scratch_);
  at = put_place(at, header);

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
  if (is_event(header.kind)) {
    at = cbor::put_head(put_key(at, kDuration), Major::unsigned_integer, header.duration_ns);
    if (header.outcome != Outcome::success) {
      at = cbor::put_head(put_key(at, kOutcome), Major::unsigned_integer,
                          static_cast<std::uint64_t>(header.outcome));
    }
    if (any_by_slot && !by_slot_[kFieldList].empty()) {
      at = cbor::put_head(put_key(at, kFields), Major::map, by_slot_[kFieldList].size());
      for (const auto& field : by_slot_[kFieldList]) {
        at = put_field(cbor::put_head(at, Major::unsigned_integer, field.slot), field, scratch_);
      }
    }
    if (forms_of_fields != 0) {
      at = cbor::put_head(put_key(at, kFieldForms), Major::map, forms_of_fields);
      for (const auto& field : by_slot_[kFieldList]) {
        if (field.form == 0 || !is_text_field(field)) continue;
        at = cbor::put_head(at, Major::unsigned_integer, field.slot);
        at = cbor::put_head(at, Major::unsigned_integer, field.form);
      }
    }
  }
  out.resize(static_cast<std::size_t>(at - out.data()));
}

void encode_cbor(const RecordView& record, const SessionInfo& session, const WriterInfo& writer,
                 std::vector<std::byte>& out) {
  CborEncoder(session, writer).encode(record, out);
}

}  // namespace rubriscope
