#include "rubriscope/sinks/jsonl/jsonl_sink.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <filesystem>

#include "rubriscope/core/captured.h"
#include "rubriscope/core/errors.h"
#include "rubriscope/core/event_fields.h"
#include "rubriscope/core/json.h"
#include "rubriscope/sinks/lines_file.h"
#include "rubriscope/sinks/rows.h"

namespace rubriscope {
namespace {

constexpr std::string_view kLineStart = "{\"writer\":\"";
struct LastLine {
  bool found{false};
  std::optional<std::uint64_t> sequence;  ///< of the last record; none when there is but a session line
};

/// The last line of a writer. Its lines ascend, and a line break inside a JSON string is always escaped, so a
/// match at the start of a line is a line of that writer.
LastLine find_last_line(int file, const std::string& path, const std::string& writer_id) {
  const std::string needle = std::string(kLineStart) + writer_id + "\",\"";
  constexpr std::string_view sequence_key = "sequence\":";
  constexpr std::size_t longest_number = 20;
  LastLine last;
  lines::for_each_chunk_backwards(file, path, needle.size() + sequence_key.size() + longest_number + 2,
                                  [&](std::string_view chunk, off_t start) {
                                    std::size_t at = chunk.rfind(needle);
                                    while (at != std::string_view::npos) {
                                      const bool at_line_start = at == 0 ? start == 0 : chunk[at - 1] == '\n';
                                      if (at_line_start) {
                                        last.found = true;
                                        std::string_view rest = chunk.substr(at + needle.size());
                                        if (rest.starts_with(sequence_key)) {
                                          std::uint64_t sequence = 0;
                                          for (const char c : rest.substr(sequence_key.size())) {
                                            if (c < '0' || c > '9') break;
                                            sequence = sequence * 10 + static_cast<std::uint64_t>(c - '0');
                                          }
                                          last.sequence = sequence;
                                          return true;
                                        }
                                      }
                                      if (at == 0) break;
                                      at = chunk.rfind(needle, at - 1);
                                    }
                                    return false;
                                  });
  return last;
}

}  // namespace

JsonlSink::JsonlSink(const std::string& path)
    : path_(std::filesystem::absolute(path).lexically_normal().string()) {}

JsonlSink::~JsonlSink() { release(); }

std::string JsonlSink::target() const { return "jsonl:" + path_; }

void JsonlSink::release() noexcept {
  if (file_ >= 0) ::close(file_);
  file_ = -1;
  writers_.clear();
}

void JsonlSink::ensure_open() {
  if (lines::open_for_lines(file_, path_, kLineStart, "rubriscope's JSON lines")) writers_.clear();
}

void JsonlSink::register_writer(const SessionInfo& session, const WriterInfo& info) {
  Writer writer;
  writer.prefix = std::string(kLineStart) + info.id + "\",\"sequence\":";
  std::string& common = writer.common;
  common = ",\"session\":";
  append_json_string(common, session.id);
  common += ",\"session_name\":";
  append_json_string(common, session.name);
  common += ",\"rank\":";
  append_json_number(common, std::int64_t{info.rank});
  writer.snapshot_start = ",\"kind\":\"snapshot\"" + common;
  writer.scalars_start = ",\"kind\":\"scalars\"" + common;

  const LastLine last = find_last_line(file_, path_, info.id);
  writer.may_repeat = last.sequence.has_value();
  if (!last.found) {
    text_.clear();
    JsonWriter json(text_);
    json.begin_object().key("writer").string(info.id).key("kind").string("session");
    json.key("format").number(std::int64_t{1});
    json.key("session").string(session.id).key("session_name").string(session.name);
    json.key("created_ns").number(session.created_ns);
    json.key("metadata").json(session.metadata_json.empty() ? "{}" : session.metadata_json);
    json.key("rank").number(std::int64_t{info.rank}).key("world_size").number(std::int64_t{info.world_size});
    json.key("host").string(info.host).key("pid").number(info.pid);
    json.key("started_ns").number(info.started_ns).end_object();
    text_ += '\n';
    lines::append_durably(file_, path_, text_);
  }
  writers_.insert_or_assign(info.id, std::move(writer));
}

void JsonlSink::open(const SessionInfo& session, const WriterInfo& writer) {
  ensure_open();
  register_writer(session, writer);
}

const JsonlSink::Keys& JsonlSink::keys_of(Writer& writer, const RecordView& record) {
  const auto known = writer.keys.find(record.header->schema);
  if (known != writer.keys.end()) return known->second;
  Keys keys;
  for (const auto& slot : record.schema->slots) {
    auto& of_slot = keys.of_slot.emplace_back();
    for (const auto& path : slot.paths) {
      std::string key;
      append_json_string(key, path);
      key += ':';
      keys.bytes += key.size();
      of_slot.push_back(std::move(key));
    }
  }
  return writer.keys.emplace(record.header->schema, std::move(keys)).first->second;
}

namespace {

/// Writes into a string that was made large enough beforehand.
class FixedText {
 public:
  FixedText(std::string& text, std::size_t most) : text_(text), start_(text.size()) {
    text_.resize(start_ + most);
    at_ = text_.data() + start_;
  }
  ~FixedText() { text_.resize(static_cast<std::size_t>(at_ - text_.data())); }
  FixedText(const FixedText&) = delete;
  FixedText& operator=(const FixedText&) = delete;

  FixedText& raw(std::string_view text) {
    std::memcpy(at_, text.data(), text.size());
    at_ += text.size();
    return *this;
  }
  template <class Number>
  FixedText& number(Number value) {
    at_ = write_json_number(at_, value);
    return *this;
  }
  /// Over the comma that the last member left.
  void close_object() {
    if (at_[-1] == ',') {
      at_[-1] = '}';
    } else {
      *at_++ = '}';
    }
  }

 private:
  std::string& text_;
  std::size_t start_;
  char* at_;
};

std::string_view status_name(Status status) {
  switch (status) {
    case Status::skipped:
      return "\"skipped\",";
    case Status::scored:
      return "\"scored\",";
    case Status::failed:
      return "\"failed\",";
    case Status::pending:
      return "\"pending\",";
  }
  return "\"unknown\",";
}

}  // namespace

void JsonlSink::append_by_slot(std::string_view name, ExtraTag tag, const Keys& keys,
                               const RecordView& record) {
  bool any = false;
  // A node called twice keeps what its last call said, as its score does: an object's last member wins, but
  // a repeated key would be a trap, so earlier ones are left out.
  record.for_each_extra([&](const RecordView::Extra& extra) {
    if (extra.tag != tag || extra.slot >= keys.of_slot.size()) return;
    bool superseded = false;
    record.for_each_extra([&](const RecordView::Extra& later) {
      superseded = superseded ||
                   (later.tag == tag && later.slot == extra.slot && later.text.data() > extra.text.data());
    });
    if (superseded) return;
    if (!any) {
      text_ += ",\"";
      text_ += name;
      text_ += "\":{";
    }
    for (const auto& key : keys.of_slot[extra.slot]) {
      if (any) text_ += ',';
      any = true;
      text_ += key;
      if (tag == ExtraTag::score_metadata) {
        append_json_value(text_, extra.text);
      } else if (tag == ExtraTag::calls) {
        append_json_capture(text_, extra.text, static_cast<std::uint8_t>(CaptureForm::integer));
      } else {
        append_json_string(text_, extra.text);
      }
    }
  });
  if (any) text_ += '}';
}

void JsonlSink::append_event(Writer& writer, const RecordView& record, bool recovered) {
  const RecordHeader& header = *record.header;
  const Schema& schema = *record.schema;
  const rows::Columns columns = rows::columns_of(record);
  const auto number = [this](std::string_view key, auto value) {
    text_ += key;
    append_json_number(text_, value);
  };
  text_ += writer.prefix;
  append_json_number(text_, header.sequence);
  text_ += ",\"kind\":\"";
  text_ += kind_name(header.kind);
  text_ += '"';
  text_ += writer.common;
  if (columns.episode.data() != nullptr) {
    text_ += ",\"episode\":";
    append_json_string(text_, columns.episode);
  }
  number(",\"step\":", header.step);
  if (header.group != kNoGroup) number(",\"group\":", header.group);
  if (header.sample != kNoSample) number(",\"sample\":", std::int64_t{header.sample});
  number(",\"time_ns\":", header.time_ns);
  text_ += ",\"name\":";
  append_json_string(text_, schema.name);
  text_ += ",\"attributes\":";
  append_json_value(text_, schema.attributes);
  number(",\"duration_ns\":", header.duration_ns);
  text_ += ",\"outcome\":\"";
  text_ += outcome_name(header.outcome);
  text_ += "\",\"values\":{";
  const Keys& keys = keys_of(writer, record);
  bool any = false;
  for (std::size_t i = 0; i < header.slots; ++i) {
    if (record.statuses()[i] != Status::scored) continue;
    if (any) text_ += ',';
    any = true;
    number(keys.of_slot[i].front(), record.scores()[i]);
  }
  text_ += "},\"fields\":";
  append_fields_json(text_, record, BytesAs::base64);
  if (columns.metadata_json.data() != nullptr) {
    text_ += ",\"metadata\":";
    append_json_value(text_, columns.metadata_json);
  }
  if (recovered) text_ += ",\"recovered\":true";
  text_ += "}\n";
}

void JsonlSink::append_record(Writer& writer, const RecordView& record, bool recovered) {
  if (is_event(record.header->kind)) return append_event(writer, record, recovered);
  const RecordHeader& header = *record.header;
  const Keys& keys = keys_of(writer, record);
  const bool snapshot = header.kind == RecordKind::snapshot;
  const std::size_t slots = header.slots;
  const double* const scores = record.scores();
  const Status* const statuses = record.statuses();
  const std::uint64_t* const durations = record.durations_ns();

  std::string_view episode;
  RecordView::Extra action{};
  RecordView::Extra observation{};
  std::string_view metadata;
  bool by_slot = false;
  if (header.extras_bytes != 0) {
    record.for_each_extra([&](const RecordView::Extra& extra) {
      switch (extra.tag) {
        case ExtraTag::episode:
          if (episode.data() == nullptr) episode = extra.text;
          break;
        case ExtraTag::action:
          if (action.text.data() == nullptr) action = extra;
          break;
        case ExtraTag::observation:
          if (observation.text.data() == nullptr) observation = extra;
          break;
        case ExtraTag::metadata:
          if (metadata.data() == nullptr) metadata = extra.text;
          break;
        default:
          by_slot = true;
      }
    });
  }

  {
    FixedText line(text_, writer.prefix.size() + writer.snapshot_start.size() + kMaxJsonNumber);
    line.raw(writer.prefix)
        .number(header.sequence)
        .raw(snapshot ? writer.snapshot_start : writer.scalars_start);
  }
  if (episode.data() != nullptr) {
    text_ += ",\"episode\":";
    append_json_string(text_, episode);
  }
  {
    // Three objects at most, whose keys are the paths; statuses and durations are shorter than a number.
    FixedText line(text_, 256 + 3 * (keys.bytes + slots * (kMaxJsonNumber + 1)));
    line.raw(",\"step\":").number(header.step);
    if (header.group != kNoGroup) line.raw(",\"group\":").number(header.group);
    if (header.sample != kNoSample) line.raw(",\"sample\":").number(std::int64_t{header.sample});
    line.raw(",\"time_ns\":").number(header.time_ns);
    if (snapshot && slots != 0 && statuses[0] == Status::scored) line.raw(",\"reward\":").number(scores[0]);
    line.raw(snapshot ? ",\"scores\":{" : ",\"values\":{");
    bool all_scored = true;
    for (std::size_t i = 0; i < slots; ++i) {
      if (statuses[i] != Status::scored) {
        all_scored = false;
        continue;
      }
      for (const auto& key : keys.of_slot[i]) line.raw(key).number(scores[i]).raw(",");
    }
    line.close_object();
    if (!all_scored) {
      line.raw(",\"statuses\":{");
      for (std::size_t i = 0; i < slots; ++i) {
        if (statuses[i] == Status::scored) continue;
        for (const auto& key : keys.of_slot[i]) line.raw(key).raw(status_name(statuses[i]));
      }
      line.close_object();
    }
    if (snapshot) {
      line.raw(",\"durations_ns\":{");
      for (std::size_t i = 0; i < slots; ++i) {
        if (statuses[i] == Status::skipped) continue;
        for (const auto& key : keys.of_slot[i]) line.raw(key).number(durations[i]).raw(",");
      }
      line.close_object();
    }
  }
  if (action.text.data() != nullptr) {
    text_ += ",\"action\":";
    append_json_capture(text_, action.text, action.form);
  }
  if (observation.text.data() != nullptr) {
    text_ += ",\"observation\":";
    append_json_capture(text_, observation.text, observation.form);
  }
  append_capture_notes(action, observation);
  if (by_slot) {
    append_by_slot("explanations", ExtraTag::explanation, keys, record);
    append_by_slot("reasons", ExtraTag::reason, keys, record);
  }
  if (metadata.data() != nullptr) {
    text_ += ",\"metadata\":";
    append_json_value(text_, metadata);
  }
  if (by_slot) {
    append_by_slot("score_metadata", ExtraTag::score_metadata, keys, record);
    append_by_slot("calls", ExtraTag::calls, keys, record);
  }
  if (recovered) text_ += ",\"recovered\":true";
  text_ += "}\n";
}

void JsonlSink::append_capture_notes(const RecordView::Extra& action, const RecordView::Extra& observation) {
  std::string_view open = ",\"captures\":{";
  const auto append = [&](std::string_view name, const RecordView::Extra& capture) {
    const std::string_view note = capture.text.data() != nullptr ? capture_note(capture.form) : "";
    if (note.empty()) return;
    text_.append(open).append("\"").append(name).append("\":\"").append(note).append("\"");
    open = ",";
  };
  append("action", action);
  append("observation", observation);
  if (open == ",") text_ += "}";
}

void JsonlSink::write(const Batch& batch) {
  if (batch.records.empty()) return;
  ensure_open();
  auto writer = writers_.find(batch.writer.id);
  if (writer == writers_.end()) {
    register_writer(batch.session, batch.writer);
    writer = writers_.find(batch.writer.id);
  }
  // A batch that was cut short may be offered again.
  std::optional<std::uint64_t> stored;
  if (writer->second.may_repeat || batch.recovered) {
    stored = find_last_line(file_, path_, batch.writer.id).sequence;
  }
  text_.clear();
  for (const RecordView& record : batch.records) {
    if (stored && record.header->sequence <= *stored) continue;
    append_record(writer->second, record, batch.recovered);
  }
  try {
    if (!text_.empty()) lines::append_durably(file_, path_, text_);
    writer->second.may_repeat = false;
  } catch (const SinkError&) {
    release();
    throw;
  }
}

std::optional<std::uint64_t> JsonlSink::stored_through(const WriterInfo& writer) {
  ensure_open();
  return find_last_line(file_, path_, writer.id).sequence;
}

void JsonlSink::close() {
  if (file_ < 0) return;
  const int file = file_;
  file_ = -1;
  writers_.clear();
  if (::close(file) != 0 && errno != EINTR) throw lines::sink_error("Closing", path_, errno);
}

void JsonlSink::abandon_after_fork() {
  // A lock belongs to the open file, which the parent still has: closing this descriptor releases nothing,
  // while keeping it would keep a lock that the parent held when it died.
  release();
}

}  // namespace rubriscope
