#include "rubriscope/sinks/trace_jsonl/trace_jsonl_sink.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <utility>

#include "rubriscope/core/captured.h"
#include "rubriscope/core/errors.h"
#include "rubriscope/core/json.h"
#include "rubriscope/sinks/lines_file.h"
#include "rubriscope/trace/span_schema.h"
#include "rubriscope/trace/timestamp.h"

namespace rubriscope {

namespace {

constexpr std::string_view kLineStart = "{\"trace_id\":\"";

// A batch is at most some MiB; what a killed process wrote last is within this.
constexpr off_t kLookBack = off_t{64} << 20;

}  // namespace

TraceJsonlSink::TraceJsonlSink(const std::string& path)
    : path_(std::filesystem::absolute(path).lexically_normal().string()) {}

TraceJsonlSink::~TraceJsonlSink() { release(); }

std::string TraceJsonlSink::target() const { return "trace:" + path_; }

void TraceJsonlSink::release() noexcept {
  if (file_ >= 0) ::close(file_);
  file_ = -1;
  last_ids_.clear();
}

void TraceJsonlSink::ensure_open() {
  if (lines::open_for_lines(file_, path_, kLineStart, "trace events")) last_ids_.clear();
}

void TraceJsonlSink::open(const SessionInfo&, const WriterInfo&) { ensure_open(); }

const TraceJsonlSink::Point& TraceJsonlSink::point_of(const std::string& writer_id,
                                                      const RecordView& record) {
  auto& of_writer = points_[writer_id];
  const auto known = of_writer.find(record.header->schema);
  if (known != of_writer.end()) return known->second;
  std::string layer;
  std::string operation;
  std::string component;
  JsonReader json(record.schema->attributes);
  json.expect('{');
  while (!json.accept('}')) {
    const std::string key = json.string();
    json.expect(':');
    if (key == "layer") {
      layer = json.string();
    } else if (key == "operation") {
      operation = json.string();
    } else if (key == "component") {
      component = json.string();
    } else {
      json.skip_value();
    }
    json.accept(',');
  }
  Point point;
  std::string& text = point.layer_to_component;
  text = ",\"hrm_layer\":";
  append_json_string(text, layer);
  text += ",\"operation\":";
  append_json_string(text, operation);
  text += ",\"component\":";
  append_json_string(text, component);
  text += ",\"input_summary\":";
  return of_writer.emplace(record.header->schema, std::move(point)).first->second;
}

void TraceJsonlSink::append_span(const std::string& writer_id, const RecordView& record) {
  std::string_view texts[kRemote + 1];
  std::string_view metadata;
  record.for_each_extra([&](const RecordView::Extra& extra) {
    if (extra.tag == ExtraTag::field && extra.slot <= kRemote) texts[extra.slot] = extra.text;
    if (extra.tag == ExtraTag::metadata && metadata.data() == nullptr) metadata = extra.text;
  });
  if (!last_ids_.empty() && last_ids_.contains(std::string(texts[kTraceId]))) return;
  const RecordHeader& header = *record.header;
  text_ += "{\"trace_id\":";
  append_json_string(text_, texts[kTraceId]);
  text_ += ",\"parent_id\":";
  if (texts[kParentId].empty()) {
    text_ += "null";
  } else {
    append_json_string(text_, texts[kParentId]);
  }
  text_ += ",\"timestamp\":\"";
  append_timestamp(text_, header.time_ns - static_cast<std::int64_t>(header.duration_ns));
  text_ += '"';
  text_ += point_of(writer_id, record).layer_to_component;
  append_json_string(text_, texts[kInputSummary]);
  text_ += ",\"output_summary\":";
  append_json_string(text_, texts[kOutputSummary]);
  text_ += ",\"duration_ms\":";
  append_ms(text_, header.duration_ns);
  text_ += ",\"status\":\"";
  text_ += outcome_name(header.outcome);
  text_ += "\",\"metadata\":";
  if (texts[kRemote].empty()) {
    if (metadata.empty()) {
      text_ += "{}";
    } else {
      append_json_value(text_, metadata);
    }
  } else {
    text_ += "{\"w3c_trace_id\":";
    append_json_string(text_, texts[kW3cTrace]);
    if (metadata.size() > 2 && is_valid_json(metadata)) {
      text_ += ',';
      text_ += metadata.substr(1);
    } else {
      text_ += '}';
    }
  }
  text_ += "}\n";
}

void TraceJsonlSink::read_last_ids() {
  const off_t size = lines::size_of(file_, path_);
  const off_t start = std::max<off_t>(0, size - kLookBack);
  std::string tail(static_cast<std::size_t>(size - start), '\0');
  tail.resize(lines::read_at(file_, path_, tail.data(), tail.size(), start));
  const std::string needle = "\n" + std::string(kLineStart);
  if (start == 0) tail.insert(tail.begin(), '\n');
  for (std::size_t at = tail.find(needle); at != std::string::npos; at = tail.find(needle, at)) {
    at += needle.size();
    last_ids_.insert(tail.substr(at, tail.find('"', at) - at));
  }
}

void TraceJsonlSink::write(const Batch& batch) {
  ensure_open();
  if (!batch.recovered) {
    last_ids_.clear();
  } else if (last_ids_.empty()) {
    read_last_ids();
  }
  text_.clear();
  for (const RecordView& record : batch.records) {
    if (record.header->kind == RecordKind::span) append_span(batch.writer.id, record);
  }
  if (!text_.empty()) lines::append_durably(file_, path_, text_);
}

void TraceJsonlSink::close() {
  const int file = std::exchange(file_, -1);
  release();
  points_.clear();
  // Some file systems say only now that a write failed.
  if (file >= 0 && ::close(file) != 0 && errno != EINTR) throw lines::sink_error("Closing", path_, errno);
}

void TraceJsonlSink::abandon_after_fork() {
  release();  // as JsonlSink's
  points_.clear();
}

}  // namespace rubriscope
