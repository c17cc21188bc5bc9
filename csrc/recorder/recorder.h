// The recorder: takes records from any thread into a crash-safe journal and drains them into sinks.
//
//   RecordHeader* h = recorder.try_reserve(bytes);      // hot path: memory writes only
//   while (h == nullptr && recorder.wait_for_room(bytes)) h = recorder.try_reserve(bytes);
//   if (h != nullptr) { …fill kind, slots, schema, times, arrays, extras… ; recorder.commit(h); }
//
// A reserved record must be committed soon and on every path: the drain waits for it.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "rubriscope/core/ids.h"
#include "rubriscope/core/record.h"
#include "rubriscope/core/schema.h"
#include "rubriscope/recorder/position.h"
#include "rubriscope/recorder/report.h"
#include "rubriscope/recorder/sink.h"
#include "rubriscope/vault/vault.h"

namespace rubriscope {

class Journal;

/// What happens to a new record when the journal has reached its limit.
enum class OnFull {
  block,        ///< wait block_timeout_s once, then refuse at once until there is room again
  drop_newest,  ///< refuse at once
};

struct RecorderOptions {
  std::filesystem::path journal_dir;             ///< base folder; the writer's own folder is made inside
  std::uint64_t journal_limit_bytes = 1u << 30;  ///< at least 64 KiB
  OnFull on_full = OnFull::block;
  double block_timeout_s = 5;
  int flush_interval_ms = 100;      ///< the longest a record waits before it is offered to the sinks
  int lag_report_ms = 60'000;       ///< how often to say which sinks are behind
  std::uint64_t segment_bytes = 0;  ///< size of a journal file; 0: an eighth of the limit, 8 MiB at most
  vault::VaultPtr vault;            ///< where set, everything is encrypted before it reaches the journal
};

struct SinkStats {
  std::string target;
  std::uint64_t durable{};
  std::uint64_t pending{};
  std::uint64_t failed{};  ///< given up (sinks that do not keep failed batches)
  std::string last_error;  ///< of the present failure, "" when the sink works
  bool failing{};
};

struct RecorderStats {
  std::uint64_t accepted{};
  std::uint64_t durable{};  ///< in every sink
  std::uint64_t pending{};  ///< not yet taken by at least one sink
  std::uint64_t dropped{};  ///< refused: the journal was full or could not be written
  std::uint64_t failed{};
  std::uint64_t recovered{};
  std::uint64_t damaged{};
  std::uint64_t unattributed{};
  std::uint64_t capture_ns{};
  std::uint64_t journal_bytes{};  ///< on disk now
  std::vector<SinkStats> sinks;
};

/// The position used where no context sets one. Read on the hot path: keep a copy of load() and compare
/// version(), which changes with every store().
class PositionCell {
 public:
  PositionCell() : position_(std::make_shared<Position>()) {}

  std::shared_ptr<Position> load() const {
    const std::lock_guard lock(mutex_);
    return position_;
  }
  void store(std::shared_ptr<Position> position) {
    const std::lock_guard lock(mutex_);
    position_.swap(position);
    version_.fetch_add(1, std::memory_order_release);
  }
  std::uint64_t version() const { return version_.load(std::memory_order_acquire); }
  std::shared_ptr<Position> operator->() const { return load(); }

 private:
  friend struct ForkHandlers;
  mutable std::mutex mutex_;
  std::shared_ptr<Position> position_;
  std::atomic<std::uint64_t> version_{0};
};

class Recorder {
 public:
  /// Makes the journal, opens the sinks and starts the drain thread. Empty fields of `writer` are filled in
  /// (id, host, pid, start). Throws ValueError for bad options, SystemError when the journal cannot be made,
  /// and what a sink's open() throws unless it is a SinkError that may be retried.
  Recorder(SessionInfo session, WriterInfo writer, std::vector<std::shared_ptr<Sink>> sinks,
           RecorderOptions options);
  ~Recorder();  ///< close()
  Recorder(const Recorder&) = delete;
  Recorder& operator=(const Recorder&) = delete;

  /// Room for a record of `bytes` (header included, rounded up to 8): in the journal, or in an encrypted
  /// recorder memory of this thread, which commit() seals into the journal. `length_and_state` (reserved) and
  /// `sequence` are set, `outcome` and `duration_ns` are 0; the rest holds old bytes. nullptr when the
  /// journal is full or closed.
  RecordHeader* try_reserve(std::size_t bytes) noexcept;

  /// After try_reserve() gave nullptr: makes or awaits room as on_full says. The caller must not hold the
  /// GIL. true: try again; false: refused and counted in dropped. Never throws.
  bool wait_for_room(std::size_t bytes) noexcept;

  /// The record is complete: it now survives the process.
  void commit(RecordHeader* record) noexcept;

  /// The id of a schema with this definition (its id is ignored), written to the journal when new. Any
  /// thread, cold path. Throws SystemError when the definition cannot be written.
  std::uint32_t define(Schema schema);

  /// The schema of an id given by define(). Throws KeyError.
  SchemaPtr schema(std::uint32_t id) const;

  /// Waits until everything accepted before the call is durable in every sink; returns how many records are.
  /// Throws TimeoutError with the outstanding count and last error of each sink. The caller must not hold the
  /// GIL.
  std::uint64_t flush(double timeout_s);

  /// Drains, closes the sinks and removes the journal. Records a failing sink did not take stay in the
  /// journal; the report says where. Idempotent. The caller must not hold the GIL.
  void close();
  bool closed() const;

  RecorderStats stats() const;
  const SessionInfo& session() const { return session_; }
  WriterInfo writer() const;  ///< a forked child's is its own
  const RecorderOptions& options() const { return options_; }
  std::filesystem::path journal_path() const;  ///< this writer's folder

  PositionCell default_position;
  std::atomic<std::uint64_t> unattributed{0};
  std::atomic<std::uint64_t> capture_ns{0};
  std::atomic<std::uint64_t> recovered{0};  ///< set by who ran recover() for this recorder
  std::atomic<std::uint64_t> damaged{0};

 private:
  struct State;  // everything a fork invalidates
  friend struct ForkHandlers;

  void open(State& state);
  Journal* open_in_child() noexcept;
  void show_schema(State& state, Journal& journal, const SchemaPtr& schema, const std::string& text);

  std::atomic<Journal*> journal_{nullptr};  // what try_reserve() uses; null in a child that has not recorded
  std::atomic<State*> state_{nullptr};
  const SessionInfo session_;
  const RecorderOptions options_;
  const std::vector<std::shared_ptr<Sink>> sinks_;

  mutable std::mutex schemas_mutex_;  // held over a fork
  std::vector<SchemaPtr> schemas_;
  std::vector<std::string> schema_texts_;
  std::unordered_map<std::string, std::uint32_t> schema_ids_;
};

}  // namespace rubriscope
