// A log's entries that are no records, and which record each other entry is.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>

#include "rubriscope/ledger/log.h"

namespace rubriscope {

/// An entry that is no record, by key (docs/formats.md). Throws FormatError when it is not one.
struct EntryFields {
  explicit EntryFields(std::string_view entry);

  ledger::EntryKind kind() { return static_cast<ledger::EntryKind>(integers[1]); }

  std::map<std::uint64_t, std::string> texts;
  std::map<std::uint64_t, std::int64_t> integers;
};

/// Which record each entry is that is none of its own: in the order of their sequence, but for the gaps and
/// the late ones that entries note.
class RecordOrder {
 public:
  explicit RecordOrder(std::int64_t writer_key);

  /// Takes a definition in. Throws LedgerProblem for a gap or a late record that cannot be.
  void define(std::string_view entry);
  /// The key of the next record.
  std::int64_t next();
  void skip(std::uint64_t records);
  /// Whether a record has not come yet, but may come late.
  bool is_missing(std::int64_t key) const { return missing_.contains(key); }
  /// Whether the next record is one.
  bool is_late() const { return late_.has_value(); }

 private:
  std::int64_t next_;
  const std::int64_t first_;
  std::optional<std::int64_t> late_;
  std::set<std::int64_t> missing_;
};

}  // namespace rubriscope
