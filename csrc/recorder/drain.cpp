#include "rubriscope/recorder/drain.h"

#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <cmath>
#include <system_error>

#include "rubriscope/core/clock.h"
#include "rubriscope/core/errors.h"
#include "rubriscope/recorder/fault_point.h"
#include "rubriscope/recorder/report.h"

namespace rubriscope {

namespace {

using namespace std::chrono_literals;

constexpr auto kFirstBackOff = 50ms;
constexpr auto kLongestBackOff = 5s;
constexpr std::chrono::steady_clock::duration kShortestSleep = 2ms;
constexpr auto kTrimInterval = 10s;
// The longest a sink should keep the others waiting.
constexpr std::chrono::steady_clock::duration kTurn = 200ms;
constexpr int kGivingUpAfter = 3;   // attempts, for sinks that do not keep failed batches and at close
constexpr auto kStuckAtClose = 2s;  // for a record that was reserved and is never committed

std::chrono::steady_clock::duration back_off(int attempts) {
  const int doublings = std::min(attempts - 1, 10);
  return std::min<std::chrono::steady_clock::duration>(kFirstBackOff * (1 << doublings), kLongestBackOff);
}

std::string describe_current_exception() {
  try {
    throw;
  } catch (const std::exception& error) {
    return error.what();
  } catch (...) {
    return "an exception that is not a std::exception";
  }
}

std::chrono::steady_clock::duration seconds(double value) {
  // A wait of a year is for ever, and its end can still be computed.
  const double bounded = std::clamp(value, 0.0, 3.15e7);
  return std::chrono::duration_cast<std::chrono::steady_clock::duration>(
      std::chrono::duration<double>(bounded));
}

}  // namespace

Drain::Drain(const SessionInfo& session, const WriterInfo& writer, std::vector<std::shared_ptr<Sink>> sinks,
             SchemaList schemas, int flush_interval_ms, int lag_report_ms)
    : session_(session),
      writer_(writer),
      schema_list_(std::move(schemas)),
      flush_interval_(std::chrono::milliseconds(flush_interval_ms)),
      lag_interval_(std::chrono::milliseconds(lag_report_ms)) {
  outputs_.resize(sinks.size());
  for (std::size_t i = 0; i < sinks.size(); ++i) {
    outputs_[i].target = sinks[i]->target();
    outputs_[i].takes_gil = sinks[i]->takes_gil();
    outputs_[i].sink = std::move(sinks[i]);
  }
  records_.reserve(kBatch);
  views_.reserve(kBatch);
}

void Drain::open_sinks() {
  for (Output& output : outputs_) {
    try {
      output.sink->open(session_, writer_);
      output.open = true;
    } catch (const SinkError& error) {
      if (!error.transient) throw;
      output.attempts = 1;
      output.next_attempt = Clock::now() + back_off(1);
      output.failing = true;
      output.failing_since = Clock::now();
      output.last_error = error.what();
      report("warning",
             output.target + ": " + error.what() + "; records wait in the journal until it works again");
    }
  }
}

void Drain::start(Journal& journal) {
  journal_ = &journal;
  for (Output& output : outputs_) output.cursor = journal.start();
  // Signals are for the program's threads.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  try {
    thread_ = std::thread([this] { run(); });
  } catch (const std::system_error& error) {
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    throw SystemError(error.code().value(), "cannot start the drain thread");
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  pthread_setname_np(thread_.native_handle(), "rubriscope");
}

void Drain::wake() {
  {
    const std::lock_guard guard(mutex_);
    wake_wanted_ = true;
  }
  wake_.notify_one();
}

bool Drain::wait(const std::function<bool()>& ready, double timeout_s) {
  wake();
  std::unique_lock lock(mutex_);
  bool was_ready = false;  // asked once a look: what was ready may have been taken by another by the next
  progress_.wait_for(lock, seconds(timeout_s), [&] { return (was_ready = ready()) || stopped_; });
  return was_ready;
}

std::uint64_t Drain::flush(double timeout_s) {
  if (std::isnan(timeout_s) || timeout_s < 0) {
    throw ValueError("timeout_s is " + std::to_string(timeout_s) + ", expected 0 or more");
  }
  if (std::this_thread::get_id() == thread_.get_id()) {
    throw Error("flush() was called from a sink: it would wait for itself");
  }
  const std::uint64_t target = journal_->next_sequence();
  std::unique_lock lock(mutex_);
  const auto done = [&] {
    return std::all_of(outputs_.begin(), outputs_.end(),
                       [&](const Output& output) { return output.taken >= target; });
  };
  if (!done() && !stopped_) {
    wake_wanted_ = true;
    retry_now_ = true;
    wake_.notify_one();
    progress_.wait_for(lock, seconds(timeout_s), [&] { return stopped_ || done(); });
  }
  if (!done()) {
    lock.unlock();
    throw TimeoutError("flush: after " + std::to_string(timeout_s) +
                       " s not everything is durable: " + outstanding(target));
  }
  std::uint64_t durable = target;
  for (const Output& output : outputs_) durable = std::min(durable, output.taken - output.failed);
  return durable;
}

bool Drain::stop() {
  if (!thread_.joinable()) return true;
  {
    const std::lock_guard guard(mutex_);
    stopping_ = true;
    retry_now_ = true;
  }
  wake_.notify_one();
  thread_.join();
  return released() >= journal_->next_sequence();
}

std::vector<SinkStats> Drain::sink_stats() const {
  const std::uint64_t accepted = journal_->next_sequence();
  const std::lock_guard guard(mutex_);
  std::vector<SinkStats> stats;
  stats.reserve(outputs_.size());
  for (const Output& output : outputs_) {
    stats.push_back({output.target, output.taken - output.failed, accepted - std::min(accepted, output.taken),
                     output.failed, output.last_error, output.failing});
  }
  return stats;
}

std::uint64_t Drain::released() const {
  const std::lock_guard guard(mutex_);
  std::uint64_t least = ~std::uint64_t{0};
  for (const Output& output : outputs_) least = std::min(least, output.taken);
  return least;
}

std::string Drain::outstanding(std::uint64_t target) const {
  const std::lock_guard guard(mutex_);
  std::string text;
  for (const Output& output : outputs_) {
    if (output.taken >= target) continue;
    if (!text.empty()) text += "; ";
    text += output.target + ": " + std::to_string(target - output.taken) + " outstanding";
    if (!output.last_error.empty()) text += " (" + output.last_error + ")";
  }
  return text;
}

std::uint64_t Drain::deliverable() const {
  const Clock::time_point now = Clock::now();
  const std::uint64_t accepted = journal_->next_sequence();
  std::uint64_t most = 0;
  for (const Output& output : outputs_) {
    if (output.next_attempt <= now) most = std::max(most, accepted - output.cursor.sequence);
  }
  return most;
}

Drain::Clock::duration Drain::time_to_sleep(std::uint64_t pending, Clock::duration since_offer) {
  const Clock::time_point now = Clock::now();
  const std::uint64_t accepted = journal_->next_sequence();
  const double elapsed = std::chrono::duration<double>(now - seen_at_).count();
  if (elapsed > 0) {
    const double current = static_cast<double>(accepted - seen_accepted_) / elapsed;
    rate_ = std::max(current, rate_ / 2);  // up at once, down slowly: bursts come again
  }
  seen_accepted_ = accepted;
  seen_at_ = now;
  const Clock::duration rest = flush_interval_ - std::min(flush_interval_, since_offer);
  // No progress with a full batch waiting: a record is being filled. Look again soon, but do not spin.
  if (pending >= kBatch) return made_progress_ ? Clock::duration::zero() : kShortestSleep;
  if (rate_ <= 0) return rest;
  // Half the time until a batch is full, so that it is found soon after.
  const Clock::duration to_full = seconds(static_cast<double>(kBatch - pending) / rate_ / 2);
  return std::min(rest, std::max<Clock::duration>(kShortestSleep, to_full));
}

void Drain::run() {
  Clock::time_point last_offer = Clock::now();
  seen_at_ = last_offer;
  last_trim_ = last_offer;
  last_lag_report_ = last_offer;
  for (;;) {
    bool woken = false;
    bool closing = false;
    const Clock::duration pause = time_to_sleep(deliverable(), Clock::now() - last_offer);
    const Clock::duration sleep = unfinished_ ? Clock::duration::zero() : pause;
    {
      std::unique_lock lock(mutex_);
      wake_.wait_for(lock, sleep, [&] { return wake_wanted_ || stopping_; });
      woken = std::exchange(wake_wanted_, false);
      closing = stopping_;
      if (std::exchange(retry_now_, false)) {
        for (Output& output : outputs_) output.next_attempt = {};
      }
    }
    refresh_clock();
    keep_spares();
    const Clock::time_point now = Clock::now();
    trim_spares(now);
    report_lag(now);
    if (closing) {
      finish();
      return;
    }
    if (woken || unfinished_ || deliverable() >= kBatch || now - last_offer >= flush_interval_) {
      last_offer = now;
      made_progress_ = round(journal_->next_sequence(), false);
    }
  }
}

bool Drain::round(std::uint64_t until, bool closing) {
  // Turns of equal time, not of equal records: a slow sink's batches shrink until one takes no longer than a
  // turn, and a fast sink writes as many as go into one.
  const Clock::time_point began = Clock::now();
  bool any = false;
  unfinished_ = false;
  for (bool progress = true; progress;) {
    progress = false;
    for (std::size_t i = 0; i < outputs_.size(); ++i) {
      const Clock::time_point turn_ends = Clock::now() + kTurn;
      if (Clock::now() < outputs_[i].next_attempt) continue;
      while (deliver(outputs_[i], i, until)) {
        progress = true;
        if (outputs_.size() == 1 || Clock::now() >= turn_ends) break;
      }
    }
    release_segments();
    keep_spares();
    any = any || progress;
    {
      const std::lock_guard guard(mutex_);
      progress_.notify_all();
      if (stopping_ && !closing) return any;
    }
    // What came meanwhile is for the next round: the other sinks must not wait until a slow one has caught
    // up.
    if (progress && !closing && Clock::now() - began > kTurn) {
      unfinished_ = true;
      return any;
    }
  }
  return any;
}

void Drain::open(Output& output) {
  output.sink->open(session_, writer_);
  output.open = true;
}

void Drain::make_views(const std::vector<const RecordHeader*>& records) {
  views_.clear();
  for (const RecordHeader* record : records) {
    if (record->schema >= schemas_.size()) schemas_ = schema_list_();
    if (record->schema >= schemas_.size()) {
      damaged_.fetch_add(1, std::memory_order_relaxed);
      report("error", "record " + std::to_string(record->sequence) + " names schema " +
                          std::to_string(record->schema) + ", which was never defined; it is left out");
      continue;
    }
    views_.push_back({record, schemas_[record->schema].get()});
  }
}

bool Drain::deliver(Output& output, std::size_t index, std::uint64_t until) {
  Journal::Cursor reached = output.cursor;
  records_.clear();
  journal_->read(reached, output.batch, until, records_);
  if (records_.empty()) {
    output.cursor = reached;  // it may have moved on to the next segment
    if (output.open || output.next_attempt == Clock::time_point{}) return false;
  }
  std::unique_lock at_work(sink_at_work_, std::defer_lock);
  if (!output.takes_gil) at_work.lock();
  const Clock::time_point began = Clock::now();
  try {
    if (!output.open) {
      open(output);
      // A write that failed may still have been stored: never write what the sink already holds.
      if (output.sink->stores_identity()) {
        if (const auto stored = output.sink->stored_through(writer_)) {
          const auto first_new = std::find_if(records_.begin(), records_.end(),
                                              [&](const RecordHeader* r) { return r->sequence > *stored; });
          records_.erase(records_.begin(), first_new);
        }
      }
    }
    if (!records_.empty()) {
      make_views(records_);
      RUBRISCOPE_FAULT_POINT("drain.before_write");
      if (!views_.empty()) output.sink->write({session_, writer_, views_, false});
      RUBRISCOPE_FAULT_POINT("drain.after_write");
    }
  } catch (...) {
    const std::string what = describe_current_exception();
    if (at_work.owns_lock()) at_work.unlock();
    failed(output, index, reached, what);
    return false;
  }
  if (at_work.owns_lock()) at_work.unlock();
  adapt_batch(output, records_.size(), Clock::now() - began);
  const bool moved = reached.sequence != output.cursor.sequence;
  succeeded(output, index, reached);
  return moved;
}

void Drain::adapt_batch(Output& output, std::size_t records, Clock::duration took) const {
  if (outputs_.size() == 1 || records == 0) return;  // nobody waits
  if (output.cut_from != 0 && records == output.batch) {
    // A sink whose writes cost the same whatever they hold (a slow fsync, a far server) gains nothing from
    // small ones: it would only fall behind.
    const auto half_way = output.cut_took * (output.cut_from + records) / (2 * output.cut_from);
    if (took > half_way) {
      output.least_batch = output.cut_from;
      output.batch = kBatch;
    }
    output.cut_from = 0;
    if (took > half_way) return;
  }
  if (took > kTurn && records > output.least_batch) {
    output.cut_from = records;
    output.cut_took = took;
    output.batch = std::max<std::size_t>(output.least_batch, std::min(records / 2, records * kTurn / took));
  } else if (took < kTurn / 4 && records == output.batch) {
    output.batch = std::min(kBatch, output.batch * 2);
    output.least_batch = 1;
  }
}

void Drain::report_lag(Clock::time_point now) {
  if (now - last_lag_report_ < lag_interval_) return;
  last_lag_report_ = now;
  for (Output& output : outputs_) {
    // Behind is a sink that lacks records which were there at the last look already.
    const bool behind = output.cursor.sequence < accepted_then_;
    const std::uint64_t lacks = journal_->next_sequence() - output.cursor.sequence;
    if (behind) {
      std::string line = output.target + ": " + std::to_string(lacks) + " records behind";
      if (output.failing) {
        const auto since = std::chrono::duration_cast<std::chrono::seconds>(now - output.failing_since);
        line += ", failing for " + std::to_string(since.count()) + " s (" + output.last_error + ")";
      }
      report("warning", line + "; they wait in the journal, which holds " +
                            std::to_string(journal_->bytes()) + " bytes");
    } else if (output.told_behind) {
      report("info", output.target + ": has caught up");
    }
    output.told_behind = behind;
  }
  accepted_then_ = journal_->next_sequence();
}

void Drain::succeeded(Output& output, std::size_t index, const Journal::Cursor& reached) {
  const bool was_failing = output.failing;
  output.cursor = reached;
  output.attempts = 0;
  output.next_attempt = {};
  journal_->store_cursor(index, reached.sequence);
  {
    const std::lock_guard guard(mutex_);
    output.taken = reached.sequence;
    output.failing = false;
    output.last_error.clear();
  }
  if (was_failing) report("info", output.target + ": works again");
}

void Drain::failed(Output& output, std::size_t index, const Journal::Cursor& reached,
                   const std::string& what) {
  output.open = false;
  ++output.attempts;
  output.next_attempt = Clock::now() + back_off(output.attempts);
  const bool first = !output.failing;
  const bool gives_up = !output.sink->keeps_failed_batches() && output.attempts >= kGivingUpAfter &&
                        reached.sequence > output.cursor.sequence;
  const std::uint64_t lost = reached.sequence - output.cursor.sequence;
  if (first) output.failing_since = Clock::now();
  {
    const std::lock_guard guard(mutex_);
    output.failing = true;
    output.last_error = what;
    if (gives_up) {
      output.failed += lost;
      output.taken = reached.sequence;
    }
  }
  if (first) {
    report("warning",
           output.target + ": " + what +
               (output.sink->keeps_failed_batches() ? "; records wait in the journal until it works again"
                                                    : "; trying again"));
  }
  if (gives_up) {
    output.cursor = reached;
    output.attempts = 0;
    output.next_attempt = {};
    journal_->store_cursor(index, reached.sequence);
    report("error", output.target + ": gave up " + std::to_string(lost) + " records after " +
                        std::to_string(kGivingUpAfter) + " attempts: " + what);
  }
}

void Drain::keep_spares() {
  // A journal that has never filled a segment keeps one spare; a busy one two, so that it need not wait.
  const std::size_t wanted = journal_->has_switched() ? 2 : 1;
  try {
    while (journal_->spares() < wanted && journal_->grow()) room_again();
    growth_failed_ = false;
  } catch (const std::exception& error) {
    if (!growth_failed_) report("warning", std::string("the journal cannot grow: ") + error.what());
    growth_failed_ = true;
  }
}

void Drain::trim_spares(Clock::time_point now) {
  // Disk and memory of a burst go back when it has not come again for a while.
  if (now - last_trim_ < kTrimInterval) return;
  last_trim_ = now;
  try {
    journal_->trim(2);
  } catch (const std::exception& error) {
    report("warning", std::string("a spare journal file stays: ") + error.what());
  }
}

void Drain::release_segments() {
  cursors_.clear();
  for (const Output& output : outputs_) cursors_.push_back(output.cursor);
  if (journal_->release(cursors_) > 0) room_again();
}

void Drain::finish() {
  const std::uint64_t accepted = journal_->next_sequence();
  const Clock::time_point stuck_after = Clock::now() + kStuckAtClose;
  for (;;) {
    const bool progress = round(accepted, true);
    // Worth another look: a sink that has records to take and attempts left.
    bool wait = false;
    Clock::time_point until = Clock::time_point::max();
    for (const Output& output : outputs_) {
      if (output.cursor.sequence >= accepted) continue;
      if (output.attempts > 0 && output.attempts < kGivingUpAfter) {
        wait = true;
        until = std::min(until, output.next_attempt);
      } else if (output.attempts == 0 && (progress || Clock::now() < stuck_after)) {
        wait = true;  // a record is being filled by another thread
        until = std::min(until, Clock::now() + 1ms);
      }
    }
    if (!wait) break;
    std::this_thread::sleep_until(until);
  }
  for (Output& output : outputs_) {
    RUBRISCOPE_FAULT_POINT("close.sink");
    try {
      output.sink->close();
    } catch (...) {
      const std::string what = describe_current_exception();
      report("error", output.target + ": closing failed: " + what);
      const std::lock_guard guard(mutex_);
      output.failing = true;
      output.last_error = what;
    }
  }
  const std::lock_guard guard(mutex_);
  stopped_ = true;
  progress_.notify_all();
}

}  // namespace rubriscope
