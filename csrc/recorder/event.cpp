#include "rubriscope/recorder/event.h"

#include <cmath>
#include <unordered_set>

#include "rubriscope/core/errors.h"
#include "rubriscope/core/json.h"
#include "rubriscope/recorder/fill.h"

namespace rubriscope {

namespace {

std::size_t event_bytes(const Event& event) {
  std::size_t bytes =
      sizeof(RecordHeader) + arrays_bytes(event.values.size()) + extra_bytes(event.position.episode);
  for (const EventField& field : event.fields) bytes += extra_bytes(field.text);
  if (!event.metadata_json.empty()) bytes += extra_bytes(event.metadata_json);
  return bytes;
}

void refuse_repeats(const std::vector<std::string>& names, const std::string& schema, const char* what) {
  if (names.size() > 0xFFFF) {
    throw ValueError("event \"" + schema + "\" has " + std::to_string(names.size()) + " " + what +
                     "s, at most 65535 are possible");
  }
  std::unordered_set<std::string_view> seen;
  for (const std::string& name : names) {
    if (!seen.insert(name).second) {
      throw ValueError("event \"" + schema + "\" names the " + what + " \"" + name + "\" twice");
    }
  }
}

}  // namespace

bool try_publish(Recorder& recorder, const Event& event) noexcept {
  RecordHeader* const header = recorder.try_reserve(event_bytes(event));
  if (header == nullptr) return false;
  const std::size_t n = event.values.size();
  fill_header(*header, event.kind, n, event.schema, event.position);
  header->time_ns = event.time_ns;
  header->monotonic_ns = event.monotonic_ns;
  header->outcome = event.outcome;
  header->duration_ns = event.duration_ns;
  auto* const values = reinterpret_cast<double*>(header + 1);
  auto* const durations = reinterpret_cast<std::uint64_t*>(values + n);
  auto* const statuses = reinterpret_cast<std::uint8_t*>(durations + n);
  if (n != 0) std::memset(durations, 0, n * sizeof *durations + padded(n));
  for (std::size_t i = 0; i < n; ++i) {
    values[i] = event.values[i];
    const bool there = !std::isnan(values[i]);
    statuses[i] = static_cast<std::uint8_t>(there ? Status::scored : Status::skipped);
  }
  std::byte* const extras = reinterpret_cast<std::byte*>(header + 1) + arrays_bytes(n);
  std::byte* at = put_extra(extras, ExtraTag::episode, event.position.episode);
  for (const EventField& field : event.fields) {
    at = put_extra(at, ExtraTag::field, field.text, field.form, field.field);
  }
  if (!event.metadata_json.empty()) at = put_extra(at, ExtraTag::metadata, event.metadata_json);
  header->extras_bytes = static_cast<std::uint32_t>(at - extras);
  recorder.commit(header);
  return true;
}

bool publish(Recorder& recorder, const Event& event) noexcept {
  while (!try_publish(recorder, event)) {
    if (!recorder.wait_for_room(event_bytes(event))) return false;
  }
  return true;
}

Schema event_schema(std::string name, std::string attributes_json, const std::vector<std::string>& values,
                    std::vector<std::string> fields) {
  refuse_repeats(values, name, "value");
  refuse_repeats(fields, name, "field");
  if (!is_valid_json(attributes_json)) {
    throw ValueError("event \"" + name + "\": attributes must be a JSON object, got \"" + attributes_json +
                     "\"");
  }
  Schema schema;
  schema.kind = Schema::Kind::event;
  schema.name = std::move(name);
  schema.attributes = std::move(attributes_json);
  schema.fields = std::move(fields);
  for (const std::string& value : values) schema.slots.push_back({{value}, "", ""});
  return schema;
}

}  // namespace rubriscope
