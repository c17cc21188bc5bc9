// Events: records that are no rubric's call and no logged scalars. A sight point's observations, spans of a
// trace, checkpoints of a model. What is the same every time stands in a schema (Schema::Kind::event), so
// that the hot path writes numbers and the texts that differ.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "rubriscope/core/record.h"
#include "rubriscope/recorder/position.h"
#include "rubriscope/recorder/recorder.h"

namespace rubriscope {

/// A text of an event. Borrowed.
struct EventField {
  std::uint16_t field;  ///< its place in the schema's fields; of several with one place the last is kept
  std::string_view text;
  std::uint8_t form{0};  ///< CaptureForm
};

/// One event. Borrows everything.
struct Event {
  RecordKind kind;
  std::uint32_t schema;  ///< what define() gave for a schema of Kind::event
  RecordPosition position;
  std::int64_t time_ns;  ///< wall clock at its end
  std::int64_t monotonic_ns;
  std::uint64_t duration_ns{0};
  Outcome outcome{Outcome::success};
  std::span<const double> values;  ///< one a slot of the schema; NaN where there is none
  std::span<const EventField> fields;
  std::string_view metadata_json;
};

/// Writes an event. False when the journal has no room now. Memory writes only.
bool try_publish(Recorder& recorder, const Event& event) noexcept;

/// Writes an event, waiting for room as the recorder's policy says; false when it was refused (and counted).
/// The caller must not hold the GIL.
bool publish(Recorder& recorder, const Event& event) noexcept;

/// A schema of events. `attributes_json` is a JSON object. Throws ValueError for a name twice, and for more
/// than 65535 values or fields.
Schema event_schema(std::string name, std::string attributes_json, const std::vector<std::string>& values,
                    std::vector<std::string> fields);

}  // namespace rubriscope
