#include "rubriscope/sinks/postgres/postgres_sink.h"

#include <algorithm>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "rubriscope/sinks/postgres/copy_encoder.h"

namespace rubriscope {

using postgres::CopyEncoder;
using postgres::CopyStream;
using postgres::Episode;
using postgres::Link;
using rows::Extent;

namespace {

constexpr std::size_t kMostRecords = 8192;
// The server works on a piece while the next is made. Half of what a local socket takes before its sender
// waits (Linux's wmem_max as it comes).
constexpr std::size_t kPieceBytes = 128 * 1024;
constexpr int kFittingBeforeGrowth = 16;  // each try that fails costs a time-out

struct Writer {
  Writer(const SessionInfo& session, const WriterInfo& writer, Link::Registration registered)
      : encoder(session, writer, registered.session_id, registered.writer_key),
        stored(registered.stored),
        log(ledger::WriterLog::open(session, writer, std::move(registered.log), stored)) {}

  CopyEncoder encoder;
  std::optional<std::uint64_t> stored;  // the highest sequence; a living writer writes nothing below it again
  std::optional<ledger::WriterLog> log;
  std::unordered_map<std::uint32_t, std::int64_t> schema_keys;
  std::unordered_set<std::string> episodes;
  Extent extent;
};

/// Encodes a run of records of one writer, piece by piece.
class Encoding final : public postgres::Portion {
 public:
  struct Streams {
    CopyStream steps;
    CopyStream scalars;
    CopyStream events;
  };

  Encoding(Writer& writer, std::span<const RecordView> records, Streams& streams)
      : writer_(writer),
        records_(records),
        steps_(streams.steps),
        scalars_(streams.scalars),
        events_(streams.events) {
    steps_.begin();
    scalars_.begin();
    events_.begin();
  }

  std::string_view steps() override {
    if (std::exchange(begun_, true)) steps_.taken();
    while (next_ < records_.size() && steps_.size() < kPieceBytes) add(records_[next_++]);
    if (next_ == records_.size() && !ended_) finish();
    return any_steps_ ? steps_.bytes() : std::string_view();
  }

  std::string_view scalars() override {
    return std::exchange(any_scalars_, false) ? scalars_.bytes() : std::string_view();
  }
  std::string_view events() override {
    return std::exchange(any_events_, false) ? events_.bytes() : std::string_view();
  }

  const std::vector<Extent>& extents() const override { return extents_; }
  const std::vector<Episode>& episodes() const override { return episodes_; }
  const ledger::LogChange* log() const override { return log_ ? &*log_ : nullptr; }

 private:
  void add(const RecordView& record);
  void note(const RecordView& record);
  void finish();

  Writer& writer_;
  const std::span<const RecordView> records_;
  CopyStream& steps_;
  CopyStream& scalars_;
  CopyStream& events_;
  std::size_t next_{0};
  bool begun_{false};
  bool ended_{false};
  bool any_steps_{false};
  bool any_scalars_{false};  // that were not given yet
  bool any_events_{false};
  std::vector<Extent> extents_;
  std::vector<Episode> episodes_;
  std::optional<ledger::LogChange> log_;
  bool has_episode_{false};
  std::string episode_;
};

void Encoding::add(const RecordView& record) {
  const RecordHeader& header = *record.header;
  const std::int64_t schema_key = writer_.schema_keys.at(header.schema);
  Extent& extent = writer_.extent;
  if (extent.records() == rows::kRecordsPerExtent) {
    extents_.push_back(extent);
    extent = {};
  }
  extent.add(writer_.encoder.columns().key(record), header.time_ns);
  if (header.kind == RecordKind::scalars) {
    ++extent.scalars;
    any_scalars_ = true;
    writer_.encoder.scalars(record, schema_key, scalars_);
    note(record);
    return;
  }
  if (is_event(header.kind)) {
    ++extent.events;
    any_events_ = true;
    writer_.encoder.event(record, schema_key, events_);
    note(record);
    return;
  }
  const rows::Columns columns = rows::columns_of(record);
  bool changed = !any_steps_;
  any_steps_ = true;
  if (columns.episode.data() == nullptr) {
    changed = changed || has_episode_;
    has_episode_ = false;
  } else if (!has_episode_ || columns.episode != episode_) {
    // A name that is not valid text is compared as it became: then it looks changed every time, which only
    // costs the look.
    episode_.clear();
    postgres::append_text(episode_, columns.episode);
    has_episode_ = true;
    changed = true;
    if (!writer_.episodes.contains(episode_)) {
      if (writer_.episodes.size() >= rows::kMaxKnownEpisodes) writer_.episodes.clear();
      writer_.episodes.insert(episode_);
      episodes_.push_back({episode_, header.time_ns});
    }
  }
  extent.add_step(header.step, changed, has_episode_, episode_);
  writer_.encoder.step(record, schema_key, columns,
                       has_episode_ ? std::string_view(episode_) : std::string_view(), steps_);
  note(record);
}

void Encoding::note(const RecordView& record) {
  if (writer_.log) writer_.log->add(record, ledger::bytes_of(writer_.encoder.record()));
}

void Encoding::finish() {
  ended_ = true;
  if (any_steps_) steps_.end();
  if (any_scalars_) scalars_.end();
  if (any_events_) events_.end();
  if (writer_.extent.records() != 0) extents_.push_back(writer_.extent);
  if (writer_.log) log_ = writer_.log->take();
  // Transactions that wait for each other's new names do so in one order, so never in a circle.
  std::stable_sort(episodes_.begin(), episodes_.end(),
                   [](const Episode& a, const Episode& b) { return a.name < b.name; });
  episodes_.erase(std::unique(episodes_.begin(), episodes_.end(),
                              [](const Episode& a, const Episode& b) { return a.name == b.name; }),
                  episodes_.end());
}

}  // namespace

struct PostgresSink::Connection {
  explicit Connection(std::unique_ptr<Link> opened) : link(std::move(opened)) {}

  Writer& register_writer(const SessionInfo& session, const WriterInfo& info) {
    Link::Registration registered = link->register_writer(session, info);
    return writers.insert_or_assign(info.id, Writer(session, info, std::move(registered))).first->second;
  }

  /// The records of a batch but those that a transaction stored whose acknowledgement was lost. What is
  /// recovered may also be a record that was damaged, and is not stored though later ones are.
  std::vector<RecordView> not_stored(const Writer& writer, const Batch& batch) {
    std::vector<RecordView> left;
    std::unordered_set<std::uint64_t> known;
    const std::uint64_t first = batch.records.front().header->sequence;
    const bool may_be_late = batch.recovered && writer.stored && first <= *writer.stored;
    if (may_be_late) {
      const auto found = link->stored_between(writer.encoder.columns().writer_key(), first, *writer.stored);
      known.insert(found.begin(), found.end());
    }
    for (const RecordView& record : batch.records) {
      const std::uint64_t sequence = record.header->sequence;
      const bool is_old = writer.stored && sequence <= *writer.stored;
      if (is_old && (!may_be_late || known.contains(sequence))) continue;
      left.push_back(record);
    }
    return left;
  }

  std::unique_ptr<Link> link;
  std::unordered_map<std::string, Writer> writers;  // by writer id
  Encoding::Streams streams;                        // kept for their memory
};

PostgresSink::PostgresSink(std::string target, Connect connect)
    : target_(std::move(target)), connect_(std::move(connect)), most_records_(kMostRecords) {}

PostgresSink::~PostgresSink() = default;

PostgresSink::Connection& PostgresSink::connection() {
  if (!connection_) connection_ = std::make_unique<Connection>(connect_());
  return *connection_;
}

void PostgresSink::open(const SessionInfo& session, const WriterInfo& writer) {
  try {
    connection().register_writer(session, writer);
  } catch (...) {
    connection_.reset();
    throw;
  }
}

void PostgresSink::write(const Batch& batch) {
  if (batch.records.empty()) return;
  try {
    Connection& now = connection();
    const auto known = now.writers.find(batch.writer.id);
    Writer& writer =
        known != now.writers.end() ? known->second : now.register_writer(batch.session, batch.writer);
    const std::vector<RecordView> left = now.not_stored(writer, batch);
    std::span<const RecordView> rest = left;
    for (const RecordView& record : rest) {
      if (writer.schema_keys.contains(record.header->schema)) continue;
      const std::int64_t key = now.link->schema_key(writer.encoder.columns().session_id(), *record.schema);
      writer.schema_keys.emplace(record.header->schema, key);
    }
    while (!rest.empty()) {
      const std::span<const RecordView> part = rest.first(std::min(rest.size(), most_records_));
      Encoding encoding(writer, part, now.streams);
      now.link->store(writer.encoder.columns().session_id(), writer.encoder.columns().writer_key(), encoding);
      writer.stored = std::max(writer.stored.value_or(0), part.back().header->sequence);
      rest = rest.subspan(part.size());
      if (part.size() == most_records_ && ++fitting_ == kFittingBeforeGrowth) {
        most_records_ = std::min(kMostRecords, most_records_ * 2);
        fitting_ = 0;
      }
    }
  } catch (const postgres::StatementTimeout&) {
    // What was cached may belong to the transaction that is gone.
    connection_.reset();
    fitting_ = 0;
    most_records_ = std::max<std::size_t>(1, std::min(most_records_, batch.records.size()) / 2);
    throw;
  } catch (...) {
    connection_.reset();
    throw;
  }
}

std::optional<std::uint64_t> PostgresSink::stored_through(const WriterInfo& writer) {
  try {
    return connection().link->stored_through(writer.id);
  } catch (...) {
    connection_.reset();
    throw;
  }
}

void PostgresSink::close() {
  if (!connection_) return;
  const std::unique_ptr<Connection> last = std::move(connection_);
  std::vector<std::int64_t> keys;
  for (const auto& [id, writer] : last->writers) keys.push_back(writer.encoder.columns().writer_key());
  std::sort(keys.begin(), keys.end());
  try {
    last->link->close_writers(keys);
  } catch (const SinkError&) {
    // The server may have been restarted since the last batch: an idle connection does not notice.
    connect_()->close_writers(keys);
  }
}

void PostgresSink::abandon_after_fork() {
  if (!connection_) return;
  connection_->link->abandon();
  // Another thread of the parent may have been inside the connection: its memory here is in an unknown state.
  (void)connection_.release();
}

}  // namespace rubriscope
