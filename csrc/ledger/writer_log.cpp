#include "rubriscope/ledger/writer_log.h"

#include <algorithm>
#include <utility>

#include "rubriscope/ledger/signer.h"

namespace rubriscope::ledger {

std::optional<WriterLog> WriterLog::open(const SessionInfo& session, const WriterInfo& writer,
                                         std::optional<LogTail> stored, std::optional<std::uint64_t> last) {
  if (!session.ledger || (!stored && last)) return std::nullopt;
  return WriterLog(session, writer, stored ? std::move(*stored) : LogTail(), last);
}

void WriterLog::append(Bytes entry) { leaves_->add(entry, next_++); }

void WriterLog::define(std::string entry) {
  entries_.push_back({next_, std::move(entry)});
  append(bytes_of(entries_.back().bytes));
}

void WriterLog::add(const RecordView& record, Bytes stored) {
  if (next_ == 0) define(writer_entry(session_, writer_));
  if (schemas_.insert(record.header->schema).second) {
    define(schema_entry(session_, writer_, *record.schema));
  }
  const std::uint64_t sequence = record.header->sequence;
  const std::uint64_t expected = last_ ? *last_ + 1 : 0;
  if (sequence < expected) {
    define(late_entry(session_, writer_, sequence));
  } else if (sequence > expected) {
    define(gap_entry(session_, writer_, expected, sequence - 1));
  }
  append(stored);
  last_ = std::max(sequence, last_.value_or(0));
}

LogChange WriterLog::take() {
  LogChange change;
  leaves_->append_to(tail_);
  change.entries = std::exchange(entries_, {});
  tail_.take_changed([&](const Tile& tile) { change.tiles.push_back(tile); });
  change.size = tail_.size();
  if (const auto key = signer()) {
    change.checkpoint = key->sign({origin_of(session_, writer_), tail_.size(), tail_.root(), {}});
  }
  return change;
}

}  // namespace rubriscope::ledger
