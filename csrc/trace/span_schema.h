// How a span or an event of a trace is laid out as a record of RecordKind::span.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "rubriscope/core/schema.h"
#include "rubriscope/trace/layer.h"

namespace rubriscope {

/// Places in the schema's fields.
enum SpanField : std::uint16_t {
  kTraceId,
  kParentId,  ///< none: a root
  kInputSummary,
  kOutputSummary,
  kW3cTrace,  ///< 32 hex digits: the tree it stands in
  kRemote,    ///< "1" where the trace came from another process
};

/// The schema of a trace point: name "mem.write", attributes {"layer":"memory","operation":"write",
/// "component":"manager.py"}, fields in the order of SpanField.
Schema span_schema(const Layer& layer, std::string_view operation, std::string_view component);

}  // namespace rubriscope
