// One writer's log while it is written, whatever database keeps it: which entries stand before a record, and
// what a transaction has to store.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <unordered_set>
#include <vector>

#include "rubriscope/core/record.h"
#include "rubriscope/ledger/leaf_queue.h"
#include "rubriscope/ledger/log.h"

namespace rubriscope::ledger {

/// What was added to a log since it was last stored.
struct LogChange {
  struct Entry {
    std::uint64_t place;
    std::string bytes;
  };

  std::vector<Entry> entries;  ///< those that are no records
  std::vector<Tile> tiles;     ///< to be put in place of those of the same level and index
  std::uint64_t size{};        ///< entries of the whole log
  /// A signed note; none without a key at hand: the last checkpoint stays, and what came after it is the
  /// unsigned tail.
  std::optional<std::string> checkpoint;
};

/// Not for several threads at once. What add() took is gone for good when its transaction is: the log is
/// then made again from what is stored.
class WriterLog {
 public:
  /// Goes on with the log that the database has, none for a new writer's; `last` is the writer's highest
  /// sequence there. No log where the session has none, and where records were stored without one: those stay
  /// so.
  static std::optional<WriterLog> open(const SessionInfo& session, const WriterInfo& writer,
                                       std::optional<LogTail> stored, std::optional<std::uint64_t> last);

  /// Adds a record by the bytes that are stored for it, and before it what has to be said about it: its
  /// writer and its schema; that records before it are missing, or that it comes late. The schemas are said
  /// once a connection: an entry that is there already says the same again.
  void add(const RecordView& record, Bytes stored);

  /// What add() took since the last call.
  LogChange take();

 private:
  WriterLog(SessionInfo session, WriterInfo writer, LogTail stored, std::optional<std::uint64_t> last)
      : session_(std::move(session)), writer_(std::move(writer)), tail_(std::move(stored)), last_(last) {}

  void define(std::string entry);
  void append(Bytes entry);

  SessionInfo session_;
  WriterInfo writer_;
  LogTail tail_;
  std::uint64_t next_{tail_.size()};                                  // the place of the next entry
  std::unique_ptr<LeafQueue> leaves_{std::make_unique<LeafQueue>()};  // what is not yet in tail_
  std::optional<std::uint64_t> last_;
  std::unordered_set<std::uint32_t> schemas_;
  std::vector<LogChange::Entry> entries_;
};

}  // namespace rubriscope::ledger
