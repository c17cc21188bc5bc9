// The drain: one thread that takes committed records from a journal to the sinks, in batches.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "rubriscope/core/ids.h"
#include "rubriscope/core/schema.h"
#include "rubriscope/recorder/journal.h"
#include "rubriscope/recorder/recorder.h"
#include "rubriscope/recorder/sink.h"

namespace rubriscope {

class Drain {
 public:
  /// Returns all schemas defined so far, by id.
  using SchemaList = std::function<std::vector<SchemaPtr>()>;

  Drain(const SessionInfo& session, const WriterInfo& writer, std::vector<std::shared_ptr<Sink>> sinks,
        SchemaList schemas, int flush_interval_ms, int lag_report_ms);

  /// Opens the sinks on the calling thread. Throws what a sink throws, except a SinkError that may be
  /// retried: that sink starts out failing. Before start().
  void open_sinks();

  /// Starts the thread. Throws SystemError.
  void start(Journal& journal);

  /// Asks for a round soon. Any thread.
  void wake();

  /// See Recorder::flush().
  std::uint64_t flush(double timeout_s);

  /// Waits until `ready` holds (looked at after every round) or the time is over; returns whether it held.
  bool wait(const std::function<bool()>& ready, double timeout_s);

  /// Delivers what can be delivered, closes the sinks and ends the thread. Returns whether every record was
  /// delivered (or given up) by every sink.
  bool stop();

  std::vector<SinkStats> sink_stats() const;

  /// Records every sink is done with.
  std::uint64_t released() const;

  /// "sink: n records (last error); …" for the sinks that have not got everything below `target`.
  std::string outstanding(std::uint64_t target) const;

  /// Whether waiting for room was in vain and no room has come since.
  bool refusing() const { return refusing_.load(std::memory_order_relaxed); }

  /// Notes that waiting was in vain; returns whether that was known.
  bool refuse() { return refusing_.exchange(true, std::memory_order_relaxed); }

  void room_again() { refusing_.store(false, std::memory_order_relaxed); }

  /// Records the drain could not make sense of.
  std::uint64_t damaged() const { return damaged_.load(std::memory_order_relaxed); }

  /// Held while a sink that does not take the GIL is at work; a fork waits for it.
  std::mutex& sink_at_work() { return sink_at_work_; }

  static constexpr std::size_t kBatch = 8192;

 private:
  using Clock = std::chrono::steady_clock;

  struct Output {
    std::shared_ptr<Sink> sink;
    std::string target;
    bool takes_gil{false};
    Journal::Cursor cursor;
    bool open{false};
    int attempts{0};  // failed ones in a row
    Clock::time_point next_attempt{};
    std::size_t batch{kBatch};  // records a write; fewer for a sink that is slow by the record
    std::size_t least_batch{1};
    std::size_t cut_from{0};  // the batch that took too long, until the smaller one is judged
    Clock::duration cut_took{};
    Clock::time_point failing_since{};
    bool told_behind{false};
    // Under mutex_, for other threads:
    std::uint64_t taken{0};
    std::uint64_t failed{0};
    bool failing{false};
    std::string last_error;
  };

  void run();
  bool round(std::uint64_t until, bool closing);
  bool deliver(Output& output, std::size_t index, std::uint64_t until);
  void adapt_batch(Output& output, std::size_t records, Clock::duration took) const;
  void report_lag(Clock::time_point now);
  void open(Output& output);
  void succeeded(Output& output, std::size_t index, const Journal::Cursor& reached);
  void failed(Output& output, std::size_t index, const Journal::Cursor& reached, const std::string& what);
  void make_views(const std::vector<const RecordHeader*>& records);
  void keep_spares();
  void trim_spares(Clock::time_point now);
  void release_segments();
  void finish();
  Clock::duration time_to_sleep(std::uint64_t pending, Clock::duration since_offer);
  std::uint64_t deliverable() const;

  const SessionInfo session_;
  const WriterInfo writer_;
  const SchemaList schema_list_;
  const Clock::duration flush_interval_;
  const Clock::duration lag_interval_;
  Journal* journal_{nullptr};
  std::thread thread_;
  std::vector<Output> outputs_;

  // The thread's own.
  std::vector<SchemaPtr> schemas_;
  std::vector<const RecordHeader*> records_;
  std::vector<RecordView> views_;
  std::vector<Journal::Cursor> cursors_;
  bool growth_failed_{false};
  Clock::time_point last_trim_{};
  Clock::time_point last_lag_report_{};
  std::uint64_t accepted_then_{0};  // at the last look for lagging sinks
  std::uint64_t seen_accepted_{0};
  Clock::time_point seen_at_{};
  double rate_{0};             // records a second
  bool made_progress_{false};  // in the last round
  bool unfinished_{false};     // the last round ended because it took long, not because all was taken

  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::condition_variable progress_;
  bool wake_wanted_{false};
  bool stopping_{false};
  bool stopped_{false};
  bool retry_now_{false};

  std::mutex sink_at_work_;
  std::atomic<std::uint64_t> damaged_{0};
  std::atomic<bool> refusing_{false};
};

}  // namespace rubriscope
