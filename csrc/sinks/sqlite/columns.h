// What the columns of a record's row hold: one function a column, for who writes rows and who checks them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "rubriscope/core/record.h"
#include "rubriscope/sinks/event_columns.h"

namespace rubriscope::sqlite {

/// JSON array of the scores by slot, null where there is none.
std::string_view scores_column(const RecordView& record, std::vector<char>& scratch);

/// The root's score, where it is a finite number.
bool has_reward(const RecordView& record);

/// A captured action or observation: a number as a number, so that SQL can compare it; all else as text.
struct CaptureColumn {
  enum class Type { null, integer, real, text };
  Type type{Type::null};
  std::int64_t integer{};
  double real{};
  std::string_view text;
};
CaptureColumn capture_column(const RecordView::Extra& capture, std::string& scratch);

using rows::EventColumns;

/// ISO 8601, UTC, with microseconds.
std::string created_at_column(std::int64_t time_ns);

}  // namespace rubriscope::sqlite
