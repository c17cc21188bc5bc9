#include "rubriscope/sinks/jsonl/jsonl_sink.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <filesystem>

#include "rubriscope/core/captured.h"
#include "rubriscope/core/errors.h"
#include "rubriscope/core/json.h"

namespace rubriscope {
namespace {

constexpr std::string_view kLineStart = "{\"writer\":\"";
constexpr std::size_t kChunk = std::size_t{1} << 20;

SinkError sink_error(const std::string& what, const std::string& path, int error_number) {
  const char* remedy = "";
  if (error_number == ENOSPC || error_number == EDQUOT) remedy = "; free some space";
  return SinkError(what + " " + path + " failed: " + std::strerror(error_number) + remedy, true);
}

/// Reads up to `bytes` at `offset`; fewer only at the end of the file.
std::size_t read_at(int file, const std::string& path, char* to, std::size_t bytes, off_t offset) {
  std::size_t have = 0;
  while (have < bytes) {
    const ssize_t got = pread(file, to + have, bytes - have, offset + static_cast<off_t>(have));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw sink_error("Reading", path, errno);
    if (got == 0) break;
    have += static_cast<std::size_t>(got);
  }
  return have;
}

off_t size_of(int file, const std::string& path) {
  struct stat info{};
  if (fstat(file, &info) != 0) throw sink_error("Reading", path, errno);
  return info.st_size;
}

/// The only one to append while it lives. Held by the open file, so it ends with the process.
class FileLock {
 public:
  FileLock(int file, const std::string& path) : file_(file) {
    while (flock(file, LOCK_EX) != 0) {
      if (errno != EINTR) throw sink_error("Locking", path, errno);
    }
  }
  ~FileLock() { flock(file_, LOCK_UN); }
  FileLock(const FileLock&) = delete;
  FileLock& operator=(const FileLock&) = delete;

 private:
  int file_;
};

/// Calls visit(chunk) from the end of the file to its start until it returns true. Neighbouring chunks
/// overlap by `overlap` bytes, so that a match across their border is seen.
template <class Visit>
void for_each_chunk_backwards(int file, const std::string& path, std::size_t overlap, Visit&& visit) {
  std::string chunk;
  off_t end = size_of(file, path);
  while (end > 0) {
    const off_t start = std::max<off_t>(0, end - static_cast<off_t>(kChunk));
    const std::size_t extra =
        std::min<std::size_t>(overlap, static_cast<std::size_t>(size_of(file, path) - end));
    chunk.resize(static_cast<std::size_t>(end - start) + extra);
    chunk.resize(read_at(file, path, chunk.data(), chunk.size(), start));
    if (visit(std::string_view(chunk), start)) return;
    end = start;
  }
}

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
  for_each_chunk_backwards(file, path, needle.size() + sequence_key.size() + longest_number + 2,
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

/// What follows the last line break was never finished.
void truncate_torn_line(int file, const std::string& path) {
  const off_t size = size_of(file, path);
  off_t keep = 0;
  for_each_chunk_backwards(file, path, 0, [&](std::string_view chunk, off_t start) {
    const std::size_t line_break = chunk.rfind('\n');
    if (line_break == std::string_view::npos) return false;
    keep = start + static_cast<off_t>(line_break) + 1;
    return true;
  });
  if (keep != size && ftruncate(file, keep) != 0) throw sink_error("Truncating a torn line of", path, errno);
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
  if (file_ >= 0) {
    // A file that was rotated or deleted would swallow what is written to it.
    struct stat mine{};
    struct stat named{};
    if (fstat(file_, &mine) == 0 && stat(path_.c_str(), &named) == 0 && mine.st_ino == named.st_ino &&
        mine.st_dev == named.st_dev) {
      return;
    }
    release();
  }
  file_ = ::open(path_.c_str(), O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
  if (file_ < 0) throw sink_error("Opening", path_, errno);
  try {
    const FileLock lock(file_, path_);
    std::array<char, kLineStart.size()> start{};
    const std::size_t have = read_at(file_, path_, start.data(), start.size(), 0);
    if (std::string_view(start.data(), have) != kLineStart.substr(0, have)) {
      throw FormatError(path_ + " does not hold rubriscope's JSON lines (they start with {\"writer\":\"). " +
                        "The file was left as it is; name another target");
    }
    truncate_torn_line(file_, path_);
  } catch (...) {
    release();
    throw;
  }
}

void JsonlSink::register_writer(const SessionInfo& session, const WriterInfo& info) {
  Writer writer;
  writer.prefix = std::string(kLineStart) + info.id + "\",\"sequence\":";
  std::string common = ",\"session\":";
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
    append_durably(text_);
  }
  writers_.insert_or_assign(info.id, std::move(writer));
}

void JsonlSink::open(const SessionInfo& session, const WriterInfo& writer) {
  ensure_open();
  register_writer(session, writer);
}

void JsonlSink::append_durably(const std::string& text) {
  const FileLock lock(file_, path_);
  const off_t before = size_of(file_, path_);
  std::size_t written = 0;
  int failure = 0;
  while (written < text.size() && failure == 0) {
    const ssize_t got = ::write(file_, text.data() + written, text.size() - written);
    if (got >= 0) {
      written += static_cast<std::size_t>(got);
    } else if (errno != EINTR) {
      failure = errno;
    }
  }
  if (failure == 0 && fdatasync(file_) != 0) failure = errno;
  if (failure == 0) return;
  // All or nothing: nobody else can have appended since, the lock is ours. Where even this fails, the next
  // open() drops a torn line and the lines before it are recognised by their sequence.
  const bool undone = ftruncate(file_, before) == 0;
  throw sink_error(undone ? "Writing to" : "Writing to (and then truncating)", path_, failure);
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

void JsonlSink::append_record(Writer& writer, const RecordView& record, bool recovered) {
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
    if (!text_.empty()) append_durably(text_);
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
  if (::close(file) != 0 && errno != EINTR) throw sink_error("Closing", path_, errno);
}

void JsonlSink::abandon_after_fork() {
  // A lock belongs to the open file, which the parent still has: closing this descriptor releases nothing,
  // while keeping it would keep a lock that the parent held when it died.
  release();
}

}  // namespace rubriscope
