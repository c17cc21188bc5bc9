// trace.jsonl: the spans of a recording, one JSON object a line in the origin's field order
// (docs/formats.md). Other records are passed over. Several processes may append to one file.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>

#include "rubriscope/recorder/sink.h"

namespace rubriscope {

class TraceJsonlSink : public Sink {
 public:
  /// `path` is made absolute; nothing is opened before open().
  explicit TraceJsonlSink(const std::string& path);
  ~TraceJsonlSink() override;
  TraceJsonlSink(const TraceJsonlSink&) = delete;
  TraceJsonlSink& operator=(const TraceJsonlSink&) = delete;

  /// "trace:/abs/trace.jsonl"
  std::string target() const override;

  /// Removes a torn last line. Throws FormatError when the file holds something other than trace events (it
  /// is left untouched), SinkError when it cannot be opened now.
  void open(const SessionInfo& session, const WriterInfo& writer) override;

  /// One write() and one fdatasync(). Of recovered spans those whose id the end of the file has are left out:
  /// their process died between writing them and noting that it had.
  void write(const Batch& batch) override;

  void close() override;
  void abandon_after_fork() override;

 private:
  /// What is the same in every line of a schema.
  struct Point {
    std::string layer_to_component;  ///< ,"hrm_layer":…,"operation":…,"component":…,"input_summary":
  };

  void ensure_open();
  void release() noexcept;
  const Point& point_of(const std::string& writer_id, const RecordView& record);
  void append_span(const std::string& writer_id, const RecordView& record);
  void read_last_ids();

  const std::string path_;
  int file_{-1};
  std::unordered_map<std::string, std::unordered_map<std::uint32_t, Point>> points_;  // by writer, schema
  std::unordered_set<std::string> last_ids_;  // of the file's end, while recovered batches come
  std::string text_;                          // scratch, kept for its memory
};

}  // namespace rubriscope
