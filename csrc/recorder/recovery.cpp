#include "rubriscope/recorder/recovery.h"

#include <algorithm>
#include <cctype>
#include <chrono>
#include <cstdlib>
#include <optional>
#include <thread>

#include "rubriscope/core/errors.h"
#include "rubriscope/recorder/cursors.h"
#include "rubriscope/recorder/definitions.h"
#include "rubriscope/recorder/fault_point.h"
#include "rubriscope/recorder/fork.h"
#include "rubriscope/recorder/journal.h"
#include "rubriscope/recorder/owner.h"
#include "rubriscope/recorder/segment.h"

namespace rubriscope {

namespace {

namespace fs = std::filesystem;

constexpr std::size_t kBatch = 4096;
constexpr int kAttempts = 3;

/// A writer's folder is named by its UUID.
bool is_writer_name(const std::string& name) {
  if (name.size() != 36) return false;
  for (std::size_t i = 0; i < name.size(); ++i) {
    const bool dash = i == 8 || i == 13 || i == 18 || i == 23;
    if (dash ? name[i] != '-' : std::isxdigit(static_cast<unsigned char>(name[i])) == 0) return false;
  }
  return true;
}

std::vector<fs::path> entries_of(const fs::path& folder) {
  std::vector<fs::path> entries;
  std::error_code error;
  for (fs::directory_iterator at(folder, error), end; !error && at != end; at.increment(error)) {
    entries.push_back(at->path());
  }
  if (error && error != std::errc::no_such_file_or_directory) {
    throw SystemError(error.value(), "cannot list the journals in", folder);
  }
  std::sort(entries.begin(), entries.end());
  return entries;
}

struct SegmentFile {
  fs::path path;
  std::uint64_t index;
};

/// A writer's segments in order. The identity inside counts; the name only where that is unreadable.
std::vector<SegmentFile> segments_of(const fs::path& folder, std::uint64_t writer) {
  std::vector<SegmentFile> segments;
  for (const fs::path& path : entries_of(folder)) {
    const std::optional<std::uint64_t> by_name = segment_index(path);
    if (!by_name) continue;
    const std::optional<SegmentIdentity> identity =
        read_segment_identity(read_file(path, sizeof(SegmentHeader)), writer);
    segments.push_back({path, identity ? identity->index : *by_name});
  }
  std::sort(segments.begin(), segments.end(),
            [](const SegmentFile& a, const SegmentFile& b) { return a.index < b.index; });
  return segments;
}

/// The end of the last record that the segments' headers tell of, for progress.
std::uint64_t end_sequence(const std::vector<SegmentFile>& segments) {
  std::uint64_t end = 0;
  for (const SegmentFile& segment : segments) {
    const FileBytes start = read_file(segment.path, sizeof(SegmentHeader));
    if (start.bytes < sizeof(SegmentHeader)) continue;
    end = std::max(end, reinterpret_cast<const SegmentHeader*>(start.data())->next_sequence);
  }
  return end;
}

std::uint64_t least_cursor(const std::vector<std::uint64_t>& cursors, std::size_t targets) {
  std::uint64_t least = targets == 0 ? 0 : cursors[0];
  for (std::size_t i = 1; i < targets; ++i) least = std::min(least, cursors[i]);
  return least;
}

std::string describe(const std::exception_ptr& thrown) {
  try {
    std::rethrow_exception(thrown);
  } catch (const std::exception& error) {
    return error.what();
  } catch (...) {
    return "an exception that is not a std::exception";
  }
}

/// The recovery of one writer's folder.
class WriterRecovery {
 public:
  WriterRecovery(fs::path folder, Ownership ownership, const SinkFactory& factory,
                 const RecoveryProgress& progress, RecoveryReport& report)
      : folder_(std::move(folder)),
        ownership_(std::move(ownership)),
        factory_(factory),
        progress_(progress),
        report_(report) {}

  void run();

 private:
  struct Output {
    enum class State { unopened, ready, none, unwanted, failed };
    std::string target;
    std::shared_ptr<Sink> sink;
    State state{State::unopened};
    std::uint64_t next{0};  ///< sequence of the first record it lacks
  };

  void take(const RecordHeader* record);
  void deliver();
  void open(Output& output);
  std::uint64_t write(Output& output, std::size_t index);
  void write_once(Output& output, std::span<const RecordView> records, bool again);
  void say(const std::string& message) { report_.messages.push_back(folder_.string() + ": " + message); }
  void set_aside(const std::vector<fs::path>& damaged_files);

  const fs::path folder_;
  const Ownership ownership_;  // held until the folder is dealt with
  const SinkFactory& factory_;
  const RecoveryProgress& progress_;
  RecoveryReport& report_;

  Definitions definitions_;
  Cursors cursors_;
  std::vector<Output> outputs_;
  std::vector<RecordView> batch_;
  std::uint64_t unknown_schemas_{0};
  std::uint64_t done_{0};
  std::uint64_t total_{0};
};

void WriterRecovery::open(Output& output) {
  try {
    if (output.sink == nullptr) output.sink = factory_(output.target);
    if (output.sink == nullptr) {
      output.state = Output::State::none;
      say("no sink for " + output.target + " here");
      return;
    }
    if (!output.sink->wants_recovered()) {
      output.state = Output::State::unwanted;
      return;
    }
    output.sink->open(*definitions_.session, *definitions_.writer);
    if (output.sink->stores_identity()) {
      if (const auto stored = output.sink->stored_through(*definitions_.writer)) {
        output.next = std::max(output.next, *stored + 1);
      }
    }
    output.state = Output::State::ready;
  } catch (...) {
    output.state = Output::State::failed;
    say(output.target + ": " + describe(std::current_exception()));
  }
}

void WriterRecovery::write_once(Output& output, std::span<const RecordView> records, bool again) {
  if (again) {
    output.sink->open(*definitions_.session, *definitions_.writer);
    if (output.sink->stores_identity()) {
      // The failed write may have been stored after all.
      const auto stored = output.sink->stored_through(*definitions_.writer);
      while (stored && !records.empty() && records.front().header->sequence <= *stored) {
        records = records.subspan(1);
      }
      if (records.empty()) return;
    }
  }
  output.sink->write({*definitions_.session, *definitions_.writer, records, true});
}

/// Writes what the output lacks of the batch; returns how many records that was.
std::uint64_t WriterRecovery::write(Output& output, std::size_t index) {
  if (batch_.back().header->sequence < output.next) return 0;
  if (output.state == Output::State::unopened) open(output);
  if (output.state != Output::State::ready) return 0;
  const auto first = std::find_if(batch_.begin(), batch_.end(), [&](const RecordView& record) {
    return record.header->sequence >= output.next;
  });
  const std::span<const RecordView> records(first, batch_.end());
  if (records.empty()) return 0;
  for (int attempt = 1;; ++attempt) {
    try {
      RUBRISCOPE_FAULT_POINT("recover.before_write");
      write_once(output, records, attempt > 1);
      RUBRISCOPE_FAULT_POINT("recover.after_write");
      break;
    } catch (...) {
      const std::string what = describe(std::current_exception());
      if (attempt < kAttempts) {
        std::this_thread::sleep_for(std::chrono::milliseconds(50 << attempt));
        continue;
      }
      if (output.sink->keeps_failed_batches()) {
        output.state = Output::State::failed;
        say(output.target + ": " + what);
        return 0;
      }
      say(output.target + ": gave up " + std::to_string(records.size()) + " records: " + what);
      break;
    }
  }
  output.next = records.back().header->sequence + 1;
  cursors_.store(index, output.next);
  RUBRISCOPE_FAULT_POINT("recover.after_cursor");
  return records.size();
}

void WriterRecovery::deliver() {
  if (batch_.empty()) return;
  std::uint64_t most = 0;
  for (std::size_t i = 0; i < outputs_.size(); ++i) most = std::max(most, write(outputs_[i], i));
  report_.delivered += most;
  done_ += most;
  batch_.clear();
  if (progress_ && most > 0) progress_(folder_, done_, std::max(done_, total_));
}

void WriterRecovery::take(const RecordHeader* record) {
  const auto schema = definitions_.schemas.find(record->schema);
  if (schema == definitions_.schemas.end() || !RecordView{record, nullptr}.fits(*schema->second)) {
    ++unknown_schemas_;
    return;
  }
  batch_.push_back({record, schema->second.get()});
  if (batch_.size() == kBatch) deliver();
}

void WriterRecovery::set_aside(const std::vector<fs::path>& damaged_files) {
  for (const fs::path& file : damaged_files) rename_file(file, file.string() + ".damaged");
  RUBRISCOPE_FAULT_POINT("recover.set_aside");
  for (const fs::path& file : entries_of(folder_)) {
    if (segment_index(file) || file.filename() == "cursors" || file.extension() == ".new") remove_file(file);
  }
  const fs::path aside = folder_.string() + ".damaged";
  rename_file(folder_, aside);
  report_.set_aside.push_back(aside);
}

void WriterRecovery::run() {
  ++report_.journals;
  RUBRISCOPE_FAULT_POINT("recover.taken");
  definitions_ = Definitions::read(folder_);
  if (!definitions_.session || !definitions_.writer) {
    ++report_.damaged;
    say("the definitions are unreadable; nothing can be recovered from it");
    const fs::path aside = folder_.string() + ".damaged";
    rename_file(folder_, aside);
    report_.set_aside.push_back(aside);
    return;
  }
  const std::uint64_t writer = writer_hash(definitions_.writer->id);
  const std::vector<std::uint64_t> before = Cursors::read(folder_ / "cursors");
  cursors_ = Cursors::recover(folder_ / "cursors");
  for (std::size_t i = 0; i < definitions_.targets.size(); ++i) {
    cursors_.store(i, before[i]);
    outputs_.push_back({definitions_.targets[i], nullptr, Output::State::unopened, before[i]});
  }
  const std::uint64_t released = least_cursor(before, outputs_.size());
  const std::vector<SegmentFile> segments = segments_of(folder_, writer);
  const std::uint64_t end = end_sequence(segments);
  total_ = end > released ? end - released : 0;

  std::vector<fs::path> damaged_files;
  bool was_set_aside = false;  // by a recovery that was killed after that
  for (const fs::path& file : entries_of(folder_)) {
    was_set_aside = was_set_aside || file.extension() == ".damaged";
  }
  SegmentWalk walk(writer, released);
  for (const SegmentFile& segment : segments) {
    FileBytes content = read_file(segment.path);
    const std::uint64_t unknown_before = unknown_schemas_;
    const bool good = walk.walk(content, segment.index, [this](const RecordHeader* r) { take(r); });
    deliver();  // before the bytes go
    if (!good || unknown_schemas_ != unknown_before) damaged_files.push_back(segment.path);
  }
  const std::uint64_t damaged = walk.counts().damaged + unknown_schemas_;
  report_.torn += walk.counts().torn;
  report_.damaged += damaged;
  if (walk.counts().torn > 0) {
    say(std::to_string(walk.counts().torn) + " records were being written when the process died");
  }
  if (damaged > 0) say(std::to_string(damaged) + " records are damaged and lost");

  const auto any = [&](Output::State state) {
    return std::any_of(outputs_.begin(), outputs_.end(), [&](const Output& o) { return o.state == state; });
  };
  // Without a sink for it a record goes nowhere, unless another sink of the same journal has it.
  const bool nowhere =
      any(Output::State::none) && !any(Output::State::ready) && !any(Output::State::unwanted);
  if (any(Output::State::failed) || nowhere) {
    report_.kept.push_back(folder_);
    return;
  }
  cursors_ = {};
  RUBRISCOPE_FAULT_POINT("recover.delivered");
  if (!damaged_files.empty() || definitions_.damaged || was_set_aside) {
    set_aside(damaged_files);
    say("the damaged files are kept in " + report_.set_aside.back().string());
    return;
  }
  const fs::path gone = folder_.parent_path() / ("." + folder_.filename().string() + ".gone");
  rename_file(folder_, gone);
  RUBRISCOPE_FAULT_POINT("recover.renamed");
  remove_journal_folder(gone);
}

/// When a journal's writer started, for their order; 0 when its definitions cannot be read, which its
/// recovery will report.
std::int64_t started_ns(const fs::path& folder) {
  try {
    const Definitions definitions = Definitions::read(folder);
    return definitions.writer ? definitions.writer->started_ns : 0;
  } catch (const Error&) {
    return 0;
  }
}

}  // namespace

RecoveryReport recover(const fs::path& base_dir, const SinkFactory& sink_for_target,
                       const RecoveryProgress& progress) {
  install_fork_handlers();
  RecoveryReport report;
  const fs::path base = fs::absolute(base_dir);

  struct Found {
    fs::path folder;
    std::int64_t started_ns;
  };
  std::vector<Found> journals;
  for (const fs::path& entry : entries_of(base)) {
    const std::string name = entry.filename();
    const fs::path stem = entry.stem();
    if (name.starts_with('.') && (entry.extension() == ".new" || entry.extension() == ".gone") &&
        is_writer_name(stem.string().substr(1))) {
      // The beginning or the end of a journal whose owner died there: it holds no record.
      if (const auto ownership = Ownership::take(entry)) remove_journal_folder(entry);
      continue;
    }
    std::error_code error;
    if (!is_writer_name(name) || !fs::is_directory(entry, error)) continue;
    if (Ownership::is_owned(entry)) {
      report.left_alone.push_back(entry);
      continue;
    }
    journals.push_back({entry, started_ns(entry)});
  }
  std::stable_sort(journals.begin(), journals.end(),
                   [](const Found& a, const Found& b) { return a.started_ns < b.started_ns; });

  for (const Found& found : journals) {
    auto ownership = Ownership::take(found.folder);
    if (!ownership) {
      std::error_code error;
      if (fs::exists(found.folder, error)) report.left_alone.push_back(found.folder);
      continue;
    }
    try {
      WriterRecovery(found.folder, std::move(*ownership), sink_for_target, progress, report).run();
    } catch (const Error& error) {
      report.kept.push_back(found.folder);
      report.messages.push_back(found.folder.string() + ": " + error.what());
    }
  }
  remove_empty_base(base);
  return report;
}

RecoveryReport recover(const fs::path& base_dir, const std::vector<std::shared_ptr<Sink>>& sinks,
                       const RecoveryProgress& progress) {
  return recover(
      base_dir,
      [&](const std::string& target) -> std::shared_ptr<Sink> {
        for (const auto& sink : sinks) {
          if (sink->target() == target) return sink;
        }
        return nullptr;
      },
      progress);
}

std::vector<JournalInfo> list_journals(const fs::path& base_dir) {
  std::vector<JournalInfo> journals;
  for (const fs::path& entry : entries_of(fs::absolute(base_dir))) {
    JournalInfo info;
    info.path = entry;
    info.set_aside = entry.extension() == ".damaged";
    std::error_code error;
    if (!is_writer_name(info.set_aside ? entry.stem() : entry.filename()) ||
        !fs::is_directory(entry, error)) {
      continue;
    }
    const Definitions definitions = Definitions::read(entry);
    if (definitions.session) info.session = *definitions.session;
    if (definitions.writer) info.writer = *definitions.writer;
    info.targets = definitions.targets;
    info.owner_alive = !info.set_aside && Ownership::is_owned(entry);
    for (const fs::path& file : entries_of(entry)) {
      const auto bytes = fs::file_size(file, error);
      if (!error) info.bytes += bytes;
    }
    if (!info.set_aside) {
      const std::uint64_t done = least_cursor(Cursors::read(entry / "cursors"), info.targets.size());
      const std::uint64_t end = end_sequence(segments_of(entry, writer_hash(info.writer.id)));
      info.pending_records = end > done ? end - done : 0;
    }
    journals.push_back(std::move(info));
  }
  std::stable_sort(journals.begin(), journals.end(), [](const JournalInfo& a, const JournalInfo& b) {
    return a.writer.started_ns < b.writer.started_ns;
  });
  return journals;
}

fs::path journal_dir_for(const std::string& target) {
  constexpr const char* kSuffix = ".rubriscope";
  for (const std::string_view scheme : {"sqlite://", "sqlite:", "jsonl://", "jsonl:", "trace:", "file://"}) {
    if (target.starts_with(scheme) && target.size() > scheme.size()) {
      return fs::absolute(target.substr(scheme.size())).string() + kSuffix;
    }
  }
  const std::size_t colon = target.find(':');
  if (colon == std::string::npos || target.find('/') < colon) return fs::absolute(target).string() + kSuffix;

  // No file to stand beside. A password is neither written nor part of the name.
  std::string named = target;
  const std::size_t authority = named.find("://");
  if (authority != std::string::npos) {
    const std::size_t start = authority + 3;
    const std::size_t end = std::min(named.find('/', start), named.size());
    const std::size_t at = named.rfind('@', end);
    const std::size_t password = named.find(':', start);
    if (at != std::string::npos && at >= start && password < at) named.erase(password, at - password);
  }
  fs::path state;
  if (const char* xdg = std::getenv("XDG_STATE_HOME"); xdg != nullptr && *xdg != '\0') {
    state = xdg;
  } else if (const char* home = std::getenv("HOME"); home != nullptr && *home != '\0') {
    state = fs::path(home) / ".local" / "state";
  } else {
    throw ValueError("neither XDG_STATE_HOME nor HOME is set: give a journal_dir for " + named);
  }
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string hash;
  const std::uint64_t value = writer_hash(named);
  for (int shift = 60; shift >= 0; shift -= 4) hash += kDigits[(value >> shift) & 15];
  return state / "rubriscope" / hash;
}

}  // namespace rubriscope
