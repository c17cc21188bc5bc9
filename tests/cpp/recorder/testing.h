// What the recorder's tests share: sinks that keep what they get, a producer, a folder that cleans up.
#pragma once

#include <fcntl.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "rubriscope/core/errors.h"
#include "rubriscope/recorder/recorder.h"
#include "rubriscope/recorder/recovery.h"
#include "rubriscope/recorder/report.h"

namespace rubriscope::testing {

/// A fresh folder, removed at the end.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    // In memory where there is such a folder: the tests make thousands of small files.
    const bool memory = ::access("/dev/shm", W_OK) == 0;
    std::string name = std::string(memory ? "/dev/shm" : "/tmp") + "/rubriscope-test-XXXXXX";
    if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("mkdtemp failed");
    path_ = name;
  }
  ~TemporaryFolder() {
    std::error_code error;
    std::filesystem::remove_all(path_, error);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path operator/(const std::string& name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

/// A record as the tests see it.
struct Seen {
  std::string writer;
  std::uint64_t sequence{};
  std::int64_t step{};
  double score{};
  bool recovered{};
  bool operator==(const Seen&) const = default;
};

/// Keeps everything in memory; can be told to fail, to be slow, or to wait.
class MemorySink : public Sink {
 public:
  explicit MemorySink(std::string target = "memory:") : target_(std::move(target)) {}

  std::string target() const override { return target_; }

  void open(const SessionInfo&, const WriterInfo&) override {
    const std::lock_guard guard(mutex);
    ++opens;
    if (before_open) before_open();
  }

  void write(const Batch& batch) override {
    std::function<void(const Batch&)> hook;
    {
      const std::lock_guard guard(mutex);
      hook = before_write;
    }
    if (hook) hook(batch);
    const std::lock_guard guard(mutex);
    ++batches;
    for (const RecordView& record : batch.records) {
      if (!record_is_valid(record.header, record.header->length())) throw std::runtime_error("bad record");
      seen.push_back({batch.writer.id, record.header->sequence, record.header->step,
                      record.header->slots > 0 ? record.scores()[0] : 0, batch.recovered});
    }
  }

  void close() override {
    const std::lock_guard guard(mutex);
    ++closes;
  }

  bool keeps_failed_batches() const override { return keeps; }
  bool wants_recovered() const override { return recovers; }
  void abandon_after_fork() override { ++abandons; }

  std::vector<Seen> all() {
    const std::lock_guard guard(mutex);
    return seen;
  }
  void set_before_write(std::function<void(const Batch&)> hook) {
    const std::lock_guard guard(mutex);
    before_write = std::move(hook);
  }

  std::mutex mutex;
  std::vector<Seen> seen;
  std::function<void(const Batch&)> before_write;
  std::function<void()> before_open;
  bool keeps{true};
  bool recovers{true};
  int batches{0};
  int opens{0};
  int closes{0};
  std::atomic<int> abandons{0};

 private:
  std::string target_;
};

/// Stores rows of fixed size in a file, identity included, so that it can be written exactly once. A row that
/// a kill cut short is dropped when the file is opened again.
class FileSink : public Sink {
 public:
  struct Row {
    char writer[40];
    std::uint64_t sequence;
    std::int64_t step;
    double score;
  };
  static_assert(sizeof(Row) == 64);

  explicit FileSink(std::filesystem::path path) : path_(std::move(path)) {}
  ~FileSink() override { close(); }

  std::string target() const override { return "file:" + path_.string(); }
  bool stores_identity() const override { return true; }
  void abandon_after_fork() override { descriptor_ = -1; }

  void open(const SessionInfo&, const WriterInfo&) override {
    close();
    descriptor_ = ::open(path_.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (descriptor_ < 0) throw SinkError("cannot open " + path_.string(), true);
    const Locked locked(descriptor_);  // or what another process appends in between would be cut off
    struct stat status;
    ::fstat(descriptor_, &status);
    const off_t whole = status.st_size / static_cast<off_t>(sizeof(Row)) * static_cast<off_t>(sizeof(Row));
    if (::ftruncate(descriptor_, whole) != 0) throw SinkError("cannot truncate", true);
  }

  void write(const Batch& batch) override {
    std::vector<Row> rows;
    for (const RecordView& record : batch.records) {
      Row row{};
      std::strncpy(row.writer, batch.writer.id.c_str(), sizeof row.writer - 1);
      row.sequence = record.header->sequence;
      row.step = record.header->step;
      row.score = record.header->slots > 0 ? record.scores()[0] : 0;
      rows.push_back(row);
    }
    const std::size_t bytes = rows.size() * sizeof(Row);
    const Locked locked(descriptor_);
    if (::write(descriptor_, rows.data(), bytes) != static_cast<ssize_t>(bytes)) {
      throw SinkError("short write", true);
    }
  }

  std::optional<std::uint64_t> stored_through(const WriterInfo& writer) override {
    std::optional<std::uint64_t> last;
    for (const Row& row : rows(path_)) {
      if (row.writer == writer.id && (!last || row.sequence > *last)) last = row.sequence;
    }
    return last;
  }

  void close() override {
    if (descriptor_ >= 0) ::close(descriptor_);
    descriptor_ = -1;
  }

  static std::vector<Row> rows(const std::filesystem::path& path) {
    std::ifstream file(path, std::ios::binary);
    std::stringstream content;
    content << file.rdbuf();
    const std::string bytes = content.str();
    std::vector<Row> rows(bytes.size() / sizeof(Row));
    if (!rows.empty()) std::memcpy(rows.data(), bytes.data(), rows.size() * sizeof(Row));
    return rows;
  }

 private:
  // The file is shared by processes and threads: each has a descriptor, and so a lock, of its own.
  struct Locked {
    explicit Locked(int file) : descriptor(file) { ::flock(descriptor, LOCK_EX); }
    ~Locked() { ::flock(descriptor, LOCK_UN); }
    int descriptor;
  };

  const std::filesystem::path path_;
  int descriptor_{-1};
};

inline Schema one_slot_schema(const std::string& class_name = "Constant") {
  Schema schema;
  schema.slots.push_back({{"root"}, class_name});
  return schema;
}

/// Fills a reserved record with one scored slot.
inline void fill(RecordHeader* record, std::uint32_t schema, std::int64_t step, double score) {
  record->kind = RecordKind::snapshot;
  record->slots = 1;
  record->schema = schema;
  record->time_ns = 0;
  record->monotonic_ns = 0;
  record->step = step;
  record->group = kNoGroup;
  record->sample = kNoSample;
  record->thread = 0;
  record->extras_bytes = 0;
  auto* const arrays = reinterpret_cast<std::byte*>(record + 1);
  std::memset(arrays, 0, arrays_bytes(1));
  std::memcpy(arrays, &score, sizeof score);
  arrays[16] = std::byte{1};
}

inline constexpr std::size_t kOneSlotBytes = sizeof(RecordHeader) + arrays_bytes(1);

/// Publishes one record; false when it was refused.
inline bool publish(Recorder& recorder, std::uint32_t schema, std::int64_t step, double score = 0.5) {
  RecordHeader* record = recorder.try_reserve(kOneSlotBytes);
  while (record == nullptr && recorder.wait_for_room(kOneSlotBytes)) {
    record = recorder.try_reserve(kOneSlotBytes);
  }
  if (record == nullptr) return false;
  fill(record, schema, step, score);
  recorder.commit(record);
  return true;
}

inline RecorderOptions options_in(const std::filesystem::path& folder) {
  RecorderOptions options;
  options.journal_dir = folder;
  options.journal_limit_bytes = 1 << 20;
  options.flush_interval_ms = 10;
  return options;
}

/// Collects reports instead of printing them.
class ReportLog {
 public:
  ReportLog() {
    auto lines = lines_;
    set_report([lines](std::string_view level, std::string_view message) {
      const std::lock_guard guard(lines->mutex);
      lines->all.push_back(std::string(level) + ": " + std::string(message));
    });
  }
  ~ReportLog() { set_report({}); }

  std::vector<std::string> all() const {
    const std::lock_guard guard(lines_->mutex);
    return lines_->all;
  }
  /// How many lines contain the text.
  int count(const std::string& text) const {
    int found = 0;
    for (const std::string& line : all()) found += line.find(text) != std::string::npos ? 1 : 0;
    return found;
  }

 private:
  struct Lines {
    std::mutex mutex;
    std::vector<std::string> all;
  };
  std::shared_ptr<Lines> lines_ = std::make_shared<Lines>();
};

/// Polls until `done` holds; false after ten seconds.
inline bool eventually(const std::function<bool()>& done) {
  for (int i = 0; i < 10000; ++i) {
    if (done()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return done();
}

}  // namespace rubriscope::testing
