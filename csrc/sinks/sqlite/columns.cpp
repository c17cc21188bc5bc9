#include "rubriscope/sinks/sqlite/columns.h"

#include <cmath>
#include <cstdio>
#include <cstring>
#include <ctime>

#include "rubriscope/core/captured.h"
#include "rubriscope/core/json.h"

namespace rubriscope::sqlite {

std::string_view scores_column(const RecordView& record, std::vector<char>& out) {
  const std::size_t slots = record.header->slots;
  if (out.size() < slots * (kMaxJsonNumber + 1) + 2) out.resize(slots * (kMaxJsonNumber + 1) + 2);
  const double* const scores = record.scores();
  const Status* const statuses = record.statuses();
  char* at = out.data();
  *at++ = '[';
  for (std::size_t i = 0; i < slots; ++i) {
    if (i != 0) *at++ = ',';
    if (statuses[i] == Status::scored) {
      at = write_json_number(at, scores[i]);
    } else {
      std::memcpy(at, "null", 4);
      at += 4;
    }
  }
  *at++ = ']';
  return {out.data(), static_cast<std::size_t>(at - out.data())};
}

bool has_reward(const RecordView& record) {
  // Slot 0 of a tree is its root.
  return record.header->slots != 0 && record.statuses()[0] == Status::scored &&
         std::isfinite(record.scores()[0]);
}

CaptureColumn capture_column(const RecordView::Extra& capture, std::string& scratch) {
  CaptureColumn column;
  if (capture.text.data() == nullptr) return column;
  if (const auto integer = captured_integer(capture.text, capture.form)) {
    column.type = CaptureColumn::Type::integer;
    column.integer = *integer;
    return column;
  }
  const auto real = captured_real(capture.text, capture.form);
  if (real && !std::isnan(*real)) {  // SQLite would make NULL of a NaN
    column.type = CaptureColumn::Type::real;
    column.real = *real;
    return column;
  }
  scratch.clear();
  append_captured_text(scratch, capture.text, capture.form);
  column.type = CaptureColumn::Type::text;
  column.text = scratch;
  return column;
}

std::string created_at_column(std::int64_t time_ns) {
  const std::time_t seconds = time_ns / 1'000'000'000;
  std::tm parts{};
  gmtime_r(&seconds, &parts);
  char text[48];
  const std::size_t length = std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &parts);
  std::snprintf(text + length, sizeof text - length, ".%06dZ",
                static_cast<int>(time_ns % 1'000'000'000 / 1000));
  return text;
}

}  // namespace rubriscope::sqlite
