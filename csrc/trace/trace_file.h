// Reads trace files of any size in flat memory: forwards, or backwards from the end.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "rubriscope/recorder/file.h"
#include "rubriscope/trace/trace_line.h"
#include "rubriscope/trace/trace_stats.h"

namespace rubriscope {

/// Which events are wanted; empty: all.
struct TraceFilter {
  std::string layer;  ///< its full name
  std::string status;
  std::optional<std::int64_t> since_ns;

  bool takes(const TraceLine& line) const;
};

class TraceFile {
 public:
  /// Bytes read and bytes in all; throw to stop.
  using Progress = std::function<void(std::uint64_t, std::uint64_t)>;
  /// An event and its line; false stops. Both are valid during the call.
  using Visit = std::function<bool(const TraceLine&, std::string_view)>;

  /// Throws SystemError.
  explicit TraceFile(const std::string& path);

  /// Events from `offset` on, in the file's order. A last line without its line break is left for later.
  /// Returns where reading ended.
  std::uint64_t forwards(std::uint64_t offset, const Visit& visit, const Progress& progress);

  /// Events from the last to the first.
  void backwards(const Visit& visit, const Progress& progress);

  /// The lines of the whole tree that holds `id`, those that ended last first; empty where nothing has it.
  std::vector<std::string> tree(const std::string& id, const Progress& progress);

  std::uint64_t size() const;
  /// Lines read so far that are no events.
  std::uint64_t corrupt() const { return corrupt_; }

 private:
  bool take(std::string_view line, const Visit& visit);

  std::string path_;
  File file_;
  std::uint64_t corrupt_{0};
};

}  // namespace rubriscope
