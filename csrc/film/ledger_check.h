// Whether the rows of a database say what a log's entries say.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>

#include "rubriscope/core/cbor.h"
#include "rubriscope/core/schema.h"
#include "rubriscope/film/ledger_source.h"

namespace rubriscope {

/// Takes one log's entries in their order. Throws LedgerProblem for the first thing that does not hold.
class LedgerCheck {
 public:
  LedgerCheck(LedgerSource& source, const LedgerLog& log)
      : source_(source), log_(log), writer_(source.writer(log.writer_key)) {}

  /// An entry that is no record, against the rows of the session and the writer.
  void define(std::string_view entry);
  /// A record's row, whose bytes are the entry.
  void row(LedgerTable table, LedgerRows& row);

 private:
  const SchemaPtr& schema(LedgerRows& row, std::uint32_t id);

  LedgerSource& source_;
  const LedgerLog& log_;
  const LedgerWriter writer_;
  DecodedRecord decoded_;
  std::unordered_map<std::uint32_t, std::string> definitions_;
  std::unordered_map<std::int64_t, SchemaPtr> schemas_;  // by key, those whose rows hold
};

}  // namespace rubriscope
