// An event's texts by name, read back from its record.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "rubriscope/core/record.h"

namespace rubriscope {

/// The extras of an event's fields in the order of the schema; of a field given twice the last. The result is
/// in `scratch`.
const std::vector<RecordView::Extra>& event_fields(const RecordView& event,
                                                   std::vector<RecordView::Extra>& scratch);

enum class BytesAs {
  size,    ///< {"bytes":123}: who wants them reads the record
  base64,  ///< {"base64":"…"}
};

/// Appends the fields as a JSON object by name: numbers and JSON as such, else text.
void append_fields_json(std::string& out, const RecordView& event, BytesAs bytes);

/// A field's text as valid UTF-8 in `scratch`, with null data() where the event has none of this name.
std::string_view field_text(const RecordView& event, std::string_view name, std::string& scratch);

}  // namespace rubriscope
