// A writer's definitions: session, writer, sink targets and schemas, framed and checksummed in an append-only
// file. Kept in two files, since every record depends on them.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "rubriscope/core/ids.h"
#include "rubriscope/core/schema.h"
#include "rubriscope/recorder/file.h"

namespace rubriscope {

/// What the two files say together.
struct Definitions {
  std::optional<SessionInfo> session;
  std::optional<WriterInfo> writer;
  std::vector<std::string> targets;
  std::map<std::uint32_t, SchemaPtr> schemas;
  bool damaged{false};  ///< a frame in the middle of a file is bad, or many are missing

  /// Reads `definitions` and `definitions.copy` in a writer's folder. A file that is not there counts as
  /// empty. Throws SystemError.
  static Definitions read(const std::filesystem::path& folder);
};

/// Appends to the two files.
class DefinitionsWriter {
 public:
  /// Makes both files in `folder`. Throws SystemError.
  explicit DefinitionsWriter(const std::filesystem::path& folder);

  void add(const SessionInfo& session);
  void add(const WriterInfo& writer);
  void add_target(std::uint32_t index, const std::string& target);
  void add_schema(std::uint32_t id, std::string_view definition_json);

  void close();

 private:
  enum class Kind : std::uint32_t { session = 1, writer = 2, target = 3, schema = 4 };
  friend struct Definitions;
  struct FrameHeader;

  void append(Kind kind, const std::string& payload);

  std::filesystem::path paths_[2];
  File files_[2];
};

}  // namespace rubriscope
