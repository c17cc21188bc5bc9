#include "rubriscope/core/event_fields.h"

#include <algorithm>

#include "rubriscope/core/base64.h"
#include "rubriscope/core/captured.h"
#include "rubriscope/core/json.h"

namespace rubriscope {

namespace {

void append_value(std::string& out, const RecordView::Extra& field, BytesAs bytes) {
  if (field.form == static_cast<std::uint8_t>(CaptureForm::bytes)) {
    if (bytes == BytesAs::size) {
      out += "{\"bytes\":";
      append_json_number(out, std::uint64_t{field.text.size()});
    } else {
      out += "{\"base64\":\"";
      out += to_base64(as_octets(field.text));
      out += '"';
    }
    out += '}';
  } else if (field.form == static_cast<std::uint8_t>(CaptureForm::json)) {
    append_json_value(out, field.text);
  } else {
    append_json_capture(out, field.text, field.form);
  }
}

}  // namespace

const std::vector<RecordView::Extra>& event_fields(const RecordView& event,
                                                   std::vector<RecordView::Extra>& scratch) {
  scratch.clear();
  event.for_each_extra([&](const RecordView::Extra& extra) {
    if (extra.tag == ExtraTag::field && extra.slot < event.schema->fields.size()) scratch.push_back(extra);
  });
  std::stable_sort(scratch.begin(), scratch.end(),
                   [](const auto& a, const auto& b) { return a.slot < b.slot; });
  std::size_t kept = 0;
  for (const auto& extra : scratch) {
    if (kept != 0 && scratch[kept - 1].slot == extra.slot) --kept;
    scratch[kept++] = extra;
  }
  scratch.resize(kept);
  return scratch;
}

void append_fields_json(std::string& out, const RecordView& event, BytesAs bytes) {
  static thread_local std::vector<RecordView::Extra> scratch;
  out += '{';
  bool any = false;
  for (const RecordView::Extra& field : event_fields(event, scratch)) {
    if (any) out += ',';
    any = true;
    append_json_string(out, event.schema->fields[field.slot]);
    out += ':';
    append_value(out, field, bytes);
  }
  out += '}';
}

std::string_view field_text(const RecordView& event, std::string_view name, std::string& scratch) {
  const auto place = event.schema->field(name);
  if (!place) return {};
  RecordView::Extra found{};
  event.for_each_extra([&](const RecordView::Extra& extra) {
    if (extra.tag == ExtraTag::field && extra.slot == *place) found = extra;
  });
  if (found.text.data() == nullptr) return {};
  scratch.clear();
  append_captured_text(scratch, found.text, found.form);
  return scratch;
}

}  // namespace rubriscope
