#include "rubriscope/trace/span_schema.h"

#include "rubriscope/core/json.h"
#include "rubriscope/recorder/event.h"

namespace rubriscope {

Schema span_schema(const Layer& layer, std::string_view operation, std::string_view component) {
  std::string attributes;
  JsonWriter json(attributes);
  json.begin_object().key("layer").string(layer.name).key("operation").string(operation);
  json.key("component").string(component).end_object();
  return event_schema(layer.code + "." + std::string(operation), std::move(attributes), {},
                      {"trace_id", "parent_id", "input_summary", "output_summary", "w3c_trace_id", "remote"});
}

}  // namespace rubriscope
