#include "rubriscope/recorder/recorder.h"

#include <pthread.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <thread>

#include "rubriscope/core/clock.h"
#include "rubriscope/core/errors.h"
#include "rubriscope/recorder/drain.h"
#include "rubriscope/recorder/fork.h"
#include "rubriscope/recorder/journal.h"
#include "rubriscope/vault/sealer.h"

namespace rubriscope {

namespace {

void check(const RecorderOptions& options) {
  if (std::isnan(options.block_timeout_s) || options.block_timeout_s < 0) {
    throw ValueError("block_timeout_s is " + std::to_string(options.block_timeout_s) +
                     ", expected 0 or more");
  }
  if (options.flush_interval_ms < 1) {
    throw ValueError("flush_interval_ms is " + std::to_string(options.flush_interval_ms) +
                     ", expected 1 or more");
  }
  if (options.lag_report_ms < 1) {
    throw ValueError("lag_report_ms is " + std::to_string(options.lag_report_ms) + ", expected 1 or more");
  }
  if (options.journal_dir.empty()) throw ValueError("journal_dir is empty, expected a folder");
}

std::vector<std::shared_ptr<Sink>> checked(std::vector<std::shared_ptr<Sink>> sinks) {
  if (sinks.empty()) throw ValueError("a recorder needs at least one sink");
  if (std::find(sinks.begin(), sinks.end(), nullptr) != sinks.end()) throw ValueError("a sink is null");
  return sinks;
}

SessionInfo completed(SessionInfo session) {
  if (session.id.empty()) session.id = make_uuid();
  if (session.created_ns == 0) session.created_ns = detail::read_clock(CLOCK_REALTIME);
  if (session.metadata_json.empty()) session.metadata_json = "{}";
  return session;
}

WriterInfo completed(WriterInfo writer) {
  if (writer.id.empty()) writer.id = make_uuid();
  if (writer.pid == 0) writer.pid = ::getpid();
  if (writer.started_ns == 0) writer.started_ns = detail::read_clock(CLOCK_REALTIME);
  if (writer.host.empty()) {
    char name[256] = {};
    if (::gethostname(name, sizeof name - 1) == 0) writer.host = name;
  }
  return writer;
}

}  // namespace

/// Everything a fork invalidates. A child never touches its parent's, not even to destroy it: other threads
/// may have held its locks.
struct Recorder::State {
  explicit State(WriterInfo info) : writer(std::move(info)) {}

  const WriterInfo writer;
  std::unique_ptr<vault::Sealer> sealer;  // of an encrypted recorder
  std::vector<SchemaPtr> shown_schemas;   // what journal and sinks see of the schemas; under schemas_mutex_
  std::unique_ptr<Journal> journal;
  std::unique_ptr<Drain> drain;
  std::mutex lifecycle;         // opening in a child, closing
  bool inherited{false};        // made by a fork
  bool sinks_abandoned{false};  // in a child: the sinks have let go of the parent's handles
  std::atomic<bool> open_failed{false};
  std::atomic<bool> closed{false};
  std::atomic<bool> told_too_large{false};
  std::atomic<std::uint64_t> dropped{0};
  std::atomic<std::int64_t> no_growth_before_ns{0};  // monotonic; set when growing failed

  void abandon_sinks(const std::vector<std::shared_ptr<Sink>>& sinks) {
    if (!inherited || std::exchange(sinks_abandoned, true)) return;
    for (const auto& sink : sinks) sink->abandon_after_fork();
  }
};

/// pthread_atfork's handlers. The registry and the recorders in it are never destroyed under a running
/// thread.
struct ForkHandlers {
  struct Registry {
    std::mutex mutex;
    std::vector<Recorder*> recorders;
    std::vector<Recorder::State*> abandoned;  // kept reachable
    std::vector<std::unique_lock<std::mutex>> quiet_sinks;
  };

  static Registry& registry() {
    static auto* const instance = new Registry;
    return *instance;
  }

  static void install() {
    static const int installed = pthread_atfork(&prepare, &parent, &child);
    if (installed != 0) throw SystemError(installed, "cannot register the fork handlers");
  }

  static void prepare() {
    Registry& all = registry();
    all.mutex.lock();
    for (Recorder* recorder : all.recorders) {
      Recorder::State* const state = recorder->state_.load();
      if (state->drain == nullptr || state->closed.load()) continue;
      // A sink in the middle of a write may hold a library's global lock, which the child would inherit for
      // ever. Writes are short; one that hangs must not hang the fork.
      std::unique_lock quiet(state->drain->sink_at_work(), std::defer_lock);
      for (int waited_ms = 0; !quiet.try_lock() && waited_ms < 2000; ++waited_ms) {
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
      }
      if (quiet.owns_lock()) all.quiet_sinks.push_back(std::move(quiet));
    }
    for (Recorder* recorder : all.recorders) {
      recorder->schemas_mutex_.lock();
      recorder->default_position.mutex_.lock();
    }
    OwnershipForkHandlers::prepare();
  }

  static void parent() {
    Registry& all = registry();
    OwnershipForkHandlers::parent();
    for (Recorder* recorder : all.recorders) {
      recorder->default_position.mutex_.unlock();
      recorder->schemas_mutex_.unlock();
    }
    all.quiet_sinks.clear();
    all.mutex.unlock();
  }

  static void child() {
    Registry& all = registry();
    OwnershipForkHandlers::child();
    reset_clock_after_fork();
    all.quiet_sinks.clear();
    for (Recorder* recorder : all.recorders) {
      recorder->default_position.mutex_.unlock();
      recorder->schemas_mutex_.unlock();
      Recorder::State* const before = recorder->state_.load();
      if (before->journal != nullptr && !before->closed.load()) before->journal->abandon_after_fork();
      WriterInfo writer = before->writer;
      writer.id.clear();
      writer.pid = 0;
      writer.started_ns = 0;
      auto* const state = new Recorder::State(completed(std::move(writer)));
      state->inherited = true;
      state->closed = before->closed.load();
      all.abandoned.push_back(before);
      recorder->journal_.store(nullptr);
      recorder->state_.store(state);
    }
    all.mutex.unlock();
  }
};

void install_fork_handlers() { ForkHandlers::install(); }

Recorder::Recorder(SessionInfo session, WriterInfo writer, std::vector<std::shared_ptr<Sink>> sinks,
                   RecorderOptions options)
    : session_(completed(std::move(session))),
      options_(std::move(options)),
      sinks_(checked(std::move(sinks))) {
  check(options_);
  ForkHandlers::install();
  auto state = std::make_unique<State>(completed(std::move(writer)));
  open(*state);
  state_.store(state.release(), std::memory_order_release);
  ForkHandlers::Registry& all = ForkHandlers::registry();
  const std::lock_guard guard(all.mutex);
  all.recorders.push_back(this);
}

Recorder::~Recorder() {
  close();
  {
    ForkHandlers::Registry& all = ForkHandlers::registry();
    const std::lock_guard guard(all.mutex);
    std::erase(all.recorders, this);
  }
  delete state_.load();
}

void Recorder::open(State& state) {
  std::vector<std::string> targets;
  targets.reserve(sinks_.size());
  for (const auto& sink : sinks_) targets.push_back(sink->target());

  // What leaves this object: of an encrypted recorder nothing that says what was recorded.
  SessionInfo session = session_;
  WriterInfo writer = state.writer;
  if (options_.vault != nullptr) {
    state.sealer = std::make_unique<vault::Sealer>(options_.vault, session, writer);
    session.metadata_json = state.sealer->seal_metadata(session.metadata_json);
    writer.wrapped_key = state.sealer->wrapped_key();
  }
  auto drain = std::make_unique<Drain>(
      session, writer, sinks_,
      [this, &state] {
        const std::lock_guard guard(schemas_mutex_);
        return state.shown_schemas;
      },
      options_.flush_interval_ms, options_.lag_report_ms);
  auto journal = std::make_unique<Journal>(
      Journal::Options{options_.journal_dir, options_.journal_limit_bytes, options_.segment_bytes}, session,
      writer, targets, [waker = drain.get()] { waker->wake(); });
  try {
    // A child's drain thread opens the sinks: its first record may come with the GIL held.
    if (!state.inherited) drain->open_sinks();
    const std::lock_guard not_while_forking(ForkHandlers::registry().mutex);
    const std::lock_guard guard(schemas_mutex_);
    // A child gets the schemas defined so far, under the same ids.
    for (const SchemaPtr& known : schemas_) show_schema(state, *journal, known, schema_texts_[known->id]);
    drain->start(*journal);
    state.journal = std::move(journal);
    state.drain = std::move(drain);
    journal_.store(state.journal.get(), std::memory_order_release);
  } catch (...) {
    journal->remove();
    throw;
  }
}

RecordHeader* Recorder::try_reserve(std::size_t bytes) noexcept {
  Journal* journal = journal_.load(std::memory_order_acquire);
  if (journal == nullptr) [[unlikely]] {
    journal = open_in_child();
    if (journal == nullptr) return nullptr;
  }
  if (options_.vault == nullptr) return journal->reserve(bytes);
  RecordHeader* const reserved = journal->reserve(vault::Sealer::sealed_bytes(bytes));
  return reserved != nullptr ? vault::Sealer::scratch_for(reserved, bytes) : nullptr;
}

void Recorder::commit(RecordHeader* record) noexcept {
  if (options_.vault != nullptr) record = state_.load(std::memory_order_acquire)->sealer->seal(record);
  Journal::commit(record);
}

Journal* Recorder::open_in_child() noexcept {
  State& state = *state_.load(std::memory_order_acquire);
  const std::lock_guard guard(state.lifecycle);
  if (state.closed || state.open_failed) return nullptr;
  if (journal_.load(std::memory_order_acquire) == nullptr) {
    try {
      state.abandon_sinks(sinks_);
      open(state);
    } catch (const std::exception& error) {
      state.open_failed = true;
      report("error", std::string("a forked child cannot record: ") + error.what());
      return nullptr;
    }
  }
  return journal_.load(std::memory_order_acquire);
}

bool Recorder::wait_for_room(std::size_t bytes) noexcept {
  if (options_.vault != nullptr) bytes = vault::Sealer::sealed_bytes(bytes);
  State& state = *state_.load(std::memory_order_acquire);
  const auto refuse = [&] {
    state.dropped.fetch_add(1, std::memory_order_relaxed);
    return false;
  };
  Journal* const journal = journal_.load(std::memory_order_acquire);
  if (journal == nullptr || state.closed.load()) return refuse();
  if (padded(bytes) > journal->most_record_bytes()) {
    if (!state.told_too_large.exchange(true)) {
      report("error", "a record of " + std::to_string(bytes) + " bytes is refused: a journal of " +
                          std::to_string(options_.journal_limit_bytes) + " bytes takes records of up to " +
                          std::to_string(journal->most_record_bytes()));
    }
    return refuse();
  }
  if (journal->has_room(bytes)) return true;

  Drain& drain = *state.drain;
  const std::int64_t now = detail::read_clock(CLOCK_MONOTONIC);
  if (now >= state.no_growth_before_ns.load()) {
    try {
      if (journal->grow()) {
        drain.room_again();
        return true;
      }
    } catch (const std::exception& error) {
      // A full disk stays full for a while: do not ask it again for every record.
      if (state.no_growth_before_ns.exchange(now + 1'000'000'000) == 0) {
        report("warning", std::string("the journal cannot grow: ") + error.what());
      }
    }
  }

  if (options_.on_full == OnFull::block && !drain.refusing()) {
    const bool room =
        drain.wait([&] { return state.closed.load() || journal->has_room(bytes); }, options_.block_timeout_s);
    if (room && !state.closed.load()) return true;
  } else {
    drain.wake();
  }
  if (!drain.refuse() && !state.closed.load()) {
    report("warning", "the journal " + journal->path().string() + " is full (" +
                          std::to_string(journal->bytes()) +
                          " bytes): new records are refused until there is room; " +
                          drain.outstanding(journal->next_sequence()));
  }
  return refuse();
}

/// Under schemas_mutex_. Schemas come in the order of their ids.
void Recorder::show_schema(State& state, Journal& journal, const SchemaPtr& schema, const std::string& text) {
  if (state.sealer == nullptr) {
    journal.add_schema(schema->id, text);
    state.shown_schemas.push_back(schema);
    return;
  }
  auto sealed = std::make_shared<const Schema>(state.sealer->seal(*schema));
  journal.add_schema(sealed->id, sealed->definition_json());
  state.shown_schemas.push_back(std::move(sealed));
}

std::uint32_t Recorder::define(Schema schema) {
  std::string text = schema.definition_json();
  const std::lock_guard guard(schemas_mutex_);
  if (const auto known = schema_ids_.find(text); known != schema_ids_.end()) return known->second;
  const auto id = static_cast<std::uint32_t>(schemas_.size());
  schema.id = id;
  auto made = std::make_shared<const Schema>(std::move(schema));
  // In a child that has not recorded there is no journal yet; it gets all definitions when it opens.
  if (Journal* const journal = journal_.load(std::memory_order_acquire)) {
    show_schema(*state_.load(std::memory_order_acquire), *journal, made, text);
  }
  schemas_.push_back(std::move(made));
  schema_texts_.push_back(text);
  schema_ids_.emplace(std::move(text), id);
  return id;
}

SchemaPtr Recorder::schema(std::uint32_t id) const {
  const std::lock_guard guard(schemas_mutex_);
  if (id >= schemas_.size()) {
    throw KeyError("schema " + std::to_string(id) + ", expected one of the " +
                   std::to_string(schemas_.size()) + " defined");
  }
  return schemas_[id];
}

std::uint64_t Recorder::flush(double timeout_s) {
  if (journal_.load(std::memory_order_acquire) == nullptr) return 0;  // a child that has not recorded
  return state_.load(std::memory_order_acquire)->drain->flush(timeout_s);
}

void Recorder::close() {
  State& state = *state_.load(std::memory_order_acquire);
  const std::lock_guard guard(state.lifecycle);
  if (state.closed.exchange(true)) return;
  if (state.journal == nullptr) {
    state.abandon_sinks(sinks_);
    return;
  }
  Journal& journal = *state.journal;
  journal.seal();
  const bool delivered = state.drain->stop();
  const std::string path = journal.path();
  if (const std::uint64_t dropped = state.dropped.load(); dropped > 0) {
    report("warning", std::to_string(dropped) + " records were refused and are not recorded");
  }
  std::string problem;
  if (delivered) {
    const std::lock_guard no_definitions(schemas_mutex_);
    try {
      journal.remove();
    } catch (const SystemError& error) {
      journal.leave();
      problem = std::string("everything is delivered, but the empty journal stays: ") + error.what();
    }
  } else {
    const std::string missing = state.drain->outstanding(journal.next_sequence());
    const std::lock_guard no_definitions(schemas_mutex_);
    journal.leave();
    problem = missing + "; the records stay in " + path + ": `rubriscope recover " +
              options_.journal_dir.string() + "` brings them in";
  }
  // Without the lock: a report may want the GIL, and its holder the lock.
  if (!problem.empty()) report(delivered ? "warning" : "error", problem);
}

bool Recorder::closed() const { return state_.load(std::memory_order_acquire)->closed.load(); }

WriterInfo Recorder::writer() const { return state_.load(std::memory_order_acquire)->writer; }

std::filesystem::path Recorder::journal_path() const {
  return options_.journal_dir / state_.load(std::memory_order_acquire)->writer.id;
}

RecorderStats Recorder::stats() const {
  const State& state = *state_.load(std::memory_order_acquire);
  RecorderStats stats;
  stats.dropped = state.dropped.load(std::memory_order_relaxed);
  stats.recovered = recovered.load(std::memory_order_relaxed);
  stats.damaged = damaged.load(std::memory_order_relaxed);
  stats.unattributed = unattributed.load(std::memory_order_relaxed);
  stats.capture_ns = capture_ns.load(std::memory_order_relaxed);
  if (journal_.load(std::memory_order_acquire) == nullptr) {
    for (const auto& sink : sinks_) stats.sinks.push_back({sink->target(), 0, 0, 0, "", false});
    return stats;
  }
  // The sinks first: what they have taken was accepted before.
  stats.sinks = state.drain->sink_stats();
  stats.accepted = state.journal->next_sequence();
  stats.durable = stats.accepted;
  for (const SinkStats& sink : stats.sinks) {
    stats.durable = std::min(stats.durable, sink.durable);
    stats.pending = std::max(stats.pending, sink.pending);
    stats.failed += sink.failed;
  }
  stats.damaged += state.drain->damaged();
  stats.journal_bytes = state.journal->bytes();
  return stats;
}

}  // namespace rubriscope
