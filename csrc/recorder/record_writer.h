// Brings the canonical records of a writer in another process into a sink: what `rubriscope ingest` is made
// of.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "rubriscope/core/ids.h"
#include "rubriscope/core/schema.h"
#include "rubriscope/recorder/sink.h"

namespace rubriscope {

/// One writer's stream into one sink. The records keep the identity they were made with. Not thread-safe.
class RecordWriter {
 public:
  /// Throws ValueError when the sink does not store identity: a record delivered again would be stored twice.
  RecordWriter(std::shared_ptr<Sink> sink, SessionInfo session, WriterInfo writer);

  /// Makes a schema of the writer known; one already known under this id stays. Throws FormatError.
  void define(std::uint32_t id, std::string_view definition_json);
  bool knows(std::uint32_t id) const { return schemas_.contains(id); }

  struct Written {
    std::uint64_t stored{};                                    ///< new in the sink
    std::uint64_t repeated{};                                  ///< the sink had them
    std::vector<std::pair<std::size_t, std::string>> refused;  ///< index, what is wrong with the bytes
  };

  /// Stores records (canonical CBOR, ascending sequence); when it returns they are durable. Those the sink
  /// has are left out, those whose bytes are no record of this writer are refused, the rest is stored. Opens
  /// the sink, and opens it again after a failure. Throws KeyError naming a schema that is not defined and
  /// SinkError; nothing is stored then that a second call would store again.
  Written write(const std::vector<std::string_view>& records);

  /// The writer has ended: so says the sink. Throws SinkError.
  void close();

 private:
  void open();

  const std::shared_ptr<Sink> sink_;
  const SessionInfo session_;
  const WriterInfo writer_;
  std::map<std::uint32_t, SchemaPtr> schemas_;
  bool open_{false};
  std::optional<std::uint64_t> stored_;  // the highest sequence in the sink
};

}  // namespace rubriscope
