// One line of a trace file, taken apart in place.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace rubriscope {

/// Texts are as they stand between the quotes, escapes included; null data() where there is none.
struct TraceLine {
  std::string_view trace_id;
  std::string_view parent_id;
  std::string_view timestamp;
  std::string_view layer;
  std::string_view operation;
  std::string_view status;
  double duration_ms{0};
};

/// Takes a line apart; false where it is no JSON object with a trace_id, an hrm_layer and a status. Keys may
/// come in any order, others are passed over.
bool read_trace_line(std::string_view line, TraceLine& into);

/// Nanoseconds since the Unix epoch of "2026-01-13T14:00:00[.123456][Z|±hh:mm]"; without an offset it is UTC.
std::optional<std::int64_t> read_timestamp(std::string_view text);

}  // namespace rubriscope
