// What the columns of an event's row hold, whatever database it is in.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "rubriscope/core/record.h"

namespace rubriscope::rows {

/// An event's columns but those that the header has, as valid text.
struct EventColumns {
  explicit EventColumns(const RecordView& event);

  std::string name;
  std::int64_t duration_ns{};
  std::string_view outcome;  ///< "" where it is sealed
  std::string fields;        ///< JSON object by name
  std::optional<std::string> episode;
  std::optional<std::string> trace_id;   ///< of the field of this name
  std::optional<std::string> parent_id;  ///< of the field of this name
  std::optional<std::string> metadata;   ///< JSON
};

}  // namespace rubriscope::rows
