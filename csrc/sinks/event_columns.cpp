#include "rubriscope/sinks/event_columns.h"

#include <algorithm>
#include <limits>
#include <string_view>

#include "rubriscope/core/event_fields.h"
#include "rubriscope/core/json.h"
#include "rubriscope/sinks/rows.h"

namespace rubriscope::rows {

EventColumns::EventColumns(const RecordView& event)
    : duration_ns(static_cast<std::int64_t>(
          std::min<std::uint64_t>(event.header->duration_ns, std::numeric_limits<std::int64_t>::max()))),
      outcome(event.is_sealed() ? std::string_view("") : outcome_name(event.header->outcome)) {
  append_valid_utf8(name, event.schema->name);
  append_fields_json(fields, event, BytesAs::size);
  std::string scratch;
  const auto field = [&](std::string_view of_name) -> std::optional<std::string> {
    const std::string_view text = field_text(event, of_name, scratch);
    return text.data() != nullptr ? std::optional(std::string(text)) : std::nullopt;
  };
  trace_id = field("trace_id");
  parent_id = field("parent_id");
  const Columns extras = columns_of(event);
  if (extras.episode.data() != nullptr) append_valid_utf8(episode.emplace(), extras.episode);
  if (extras.metadata_json.data() != nullptr) append_json_value(metadata.emplace(), extras.metadata_json);
}

}  // namespace rubriscope::rows
