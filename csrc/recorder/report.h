// Where the recorder says what a person should know: a sink's first failure and its recovery, a full journal,
// damage found. Never called on the hot path.
#pragma once

#include <functional>
#include <string_view>

namespace rubriscope {

/// Takes a level ("info", "warning", "error") and one line of text. May be called from any thread.
using Report = std::function<void(std::string_view level, std::string_view message)>;

/// Replaces the process-wide report; an empty one restores the default, "rubriscope: <level>: <message>" on
/// stderr.
void set_report(Report report);

/// Calls the installed report. What it throws is printed on stderr and goes no further.
void report(std::string_view level, std::string_view message) noexcept;

}  // namespace rubriscope
