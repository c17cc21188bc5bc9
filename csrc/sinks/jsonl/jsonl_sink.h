// Appends records to a file as one JSON object a line, laid out as docs/formats.md says. Several processes
// may append to one file.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "rubriscope/recorder/sink.h"

namespace rubriscope {

class JsonlSink : public Sink {
 public:
  /// `path` is made absolute; nothing is opened before open().
  explicit JsonlSink(const std::string& path);
  ~JsonlSink() override;
  JsonlSink(const JsonlSink&) = delete;
  JsonlSink& operator=(const JsonlSink&) = delete;

  /// "jsonl:/abs/run.jsonl"
  std::string target() const override;

  /// Removes a torn last line and writes the writer's session line if it is not there yet. Throws FormatError
  /// when the file holds something other than our lines (it is left untouched), SinkError when it cannot be
  /// opened now.
  void open(const SessionInfo& session, const WriterInfo& writer) override;

  /// One write() and one fdatasync().
  void write(const Batch& batch) override;

  std::optional<std::uint64_t> stored_through(const WriterInfo& writer) override;
  bool stores_identity() const override { return true; }
  void close() override;
  void abandon_after_fork() override;

 private:
  /// What does not change from one record of a schema to the next.
  struct Keys {
    std::vector<std::vector<std::string>> of_slot;  ///< "\"grounding\":" for each of the node's paths
    std::size_t bytes{};                            ///< of all of them
  };
  struct Writer {
    std::string prefix;          ///< {"writer":"…","sequence":
    std::string common;          ///< ,"session":… up to the rank
    std::string snapshot_start;  ///< ,"kind":"snapshot" and the common part
    std::string scalars_start;
    bool may_repeat{true};
    std::unordered_map<std::uint32_t, Keys> keys;
  };

  void ensure_open();
  void release() noexcept;
  void register_writer(const SessionInfo& session, const WriterInfo& writer);
  const Keys& keys_of(Writer& writer, const RecordView& record);
  void append_record(Writer& writer, const RecordView& record, bool recovered);
  void append_event(Writer& writer, const RecordView& record, bool recovered);
  void append_capture_notes(const RecordView::Extra& action, const RecordView::Extra& observation);
  void append_by_slot(std::string_view name, ExtraTag tag, const Keys& keys, const RecordView& record);

  const std::string path_;
  int file_{-1};
  std::unordered_map<std::string, Writer> writers_;  // by writer id
  std::string text_;                                 // scratch, kept for its memory
};

}  // namespace rubriscope
