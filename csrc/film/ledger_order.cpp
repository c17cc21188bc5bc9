#include "rubriscope/film/ledger_order.h"

#include <span>
#include <utility>

#include "rubriscope/core/cbor.h"
#include "rubriscope/film/ledger_source.h"
#include "rubriscope/sinks/rows.h"

namespace rubriscope {

std::string record_name(std::int64_t key) {
  return "record " + std::to_string(static_cast<std::uint64_t>(key) & rows::kSequenceMask);
}

EntryFields::EntryFields(std::string_view entry) {
  cbor::Reader reader(std::as_bytes(std::span(entry)));
  const std::uint64_t pairs = reader.count(cbor::Major::map, "a ledger entry");
  for (std::uint64_t i = 0; i < pairs; ++i) {
    const std::uint64_t key = reader.unsigned_integer("a ledger entry's key");
    switch (reader.peek()) {
      case cbor::Major::text_string:
        texts[key] = reader.text("a text");
        break;
      case cbor::Major::byte_string:
        texts[key] = reader.bytes("an id");
        break;
      default:
        integers[key] = reader.integer("a number");
    }
  }
}

RecordOrder::RecordOrder(std::int64_t writer_key) : next_(rows::first_key(writer_key)), first_(next_) {}

void RecordOrder::define(std::string_view entry) {
  EntryFields fields(entry);
  const std::int64_t from = first_ + fields.integers[33];
  const std::int64_t to = first_ + fields.integers[34];
  if (fields.kind() == ledger::EntryKind::gap) {
    if (from != next_ || to < from) throw LedgerProblem("the log notes a gap where there is none");
    for (std::int64_t key = from; key <= to; ++key) missing_.insert(key);
    next_ = to + 1;
  } else if (fields.kind() == ledger::EntryKind::late) {
    if (missing_.erase(from) == 0) {
      throw LedgerProblem(record_name(from) + " is noted as late, and was not missing");
    }
    late_ = from;
  }
}

std::int64_t RecordOrder::next() {
  if (late_) return *std::exchange(late_, std::nullopt);
  return next_++;
}

void RecordOrder::skip(std::uint64_t records) {
  if (records != 0 && late_) {
    late_.reset();
    --records;
  }
  next_ += static_cast<std::int64_t>(records);
}

}  // namespace rubriscope
