#include "rubriscope/film/ledger_reader.h"

#include <algorithm>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <utility>

#include "rubriscope/core/errors.h"
#include "rubriscope/film/ledger_check.h"
#include "rubriscope/film/ledger_order.h"
#include "rubriscope/film/sqlite_ledger_source.h"
#include "rubriscope/ledger/log.h"
#include "rubriscope/sinks/rows.h"

namespace rubriscope {

using ledger::Hash;
using rows::first_key;

namespace {

constexpr std::uint64_t kEntriesAReport = 65536;

void require(const LedgerLog& log, std::uint64_t size) {
  if (size > log.size) {
    throw ValueError("the log has " + std::to_string(log.size) + " entries, not " + std::to_string(size));
  }
}

/// The records of one writer by key, in order but for the late ones, which are looked up by themselves.
class RecordRows {
 public:
  RecordRows(LedgerSource& source, std::int64_t first, std::int64_t last) : source_(source) {
    for (const LedgerTable table : kRecordTables) tables_.push_back(source.rows(table, first, last));
  }

  struct Found {
    LedgerTable table{};
    LedgerRows* row{};  ///< null where there is none
  };
  /// The row of a key. Calls `passed(key)` for the rows that stand before it.
  template <class Passed>
  Found find(std::int64_t key, bool is_late, Passed&& passed) {
    std::vector<std::unique_ptr<LedgerRows>>& from = is_late ? late_ : tables_;
    if (is_late) {
      late_.clear();
      for (const LedgerTable table : kRecordTables) late_.push_back(source_.rows(table, key, key));
    }
    Found found;
    for (std::size_t i = 0; i < from.size(); ++i) {
      LedgerRows& rows = *from[i];
      for (; !rows.at_end() && rows.key() < key; rows.advance()) passed(rows.key());
      if (found.row == nullptr && !rows.at_end() && rows.key() == key) found = {kRecordTables[i], &rows};
    }
    return found;
  }
  /// The key of a row that find() did not come to.
  std::optional<std::int64_t> left() const {
    for (const auto& rows : tables_) {
      if (!rows->at_end()) return rows->key();
    }
    return std::nullopt;
  }

 private:
  LedgerSource& source_;
  std::vector<std::unique_ptr<LedgerRows>> tables_;
  std::vector<std::unique_ptr<LedgerRows>> late_;
};

std::string text_of(std::span<const std::byte> bytes) {
  return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

}  // namespace

LedgerReader::LedgerReader(const std::string& path) : LedgerReader(open_sqlite_ledgers(path)) {}
LedgerReader::LedgerReader(std::unique_ptr<LedgerSource> source) : source_(std::move(source)) {}
LedgerReader::~LedgerReader() = default;

template <class Body>
auto LedgerReader::reading(Body&& body) const {
  const std::lock_guard lock(mutex_);
  std::optional<decltype(body())> result;
  source_->reading([&] { result.emplace(body()); });
  return std::move(*result);
}

std::vector<Hash> LedgerReader::stored_tile(const LedgerLog& log, int level, std::uint64_t index) const {
  const std::int64_t key = rows::tile_key(log.writer_key, level, index);
  const auto found = source_->rows(LedgerTable::tiles, key, key);
  return found->at_end() ? std::vector<Hash>() : ledger::hashes_of(found->bytes());
}

// Nodes of a log, each tile read once.
ledger::NodeReader LedgerReader::nodes(const LedgerLog& log, ledger::Hasher& hasher) const {
  auto cache = std::make_shared<std::map<std::pair<int, std::uint64_t>, std::vector<Hash>>>();
  return ledger::nodes_in_tiles(
      [this, &log, cache](int level, std::uint64_t index) {
        const auto [found, is_new] = cache->try_emplace({level, index});
        if (is_new) found->second = stored_tile(log, level, index);
        return found->second;
      },
      hasher);
}

std::vector<LedgerLog> LedgerReader::logs(std::int64_t session) const {
  return reading([&] { return source_->logs(session); });
}

std::vector<LedgerLog> LedgerReader::without_log(std::int64_t session) const {
  return reading([&] { return source_->without_log(session); });
}

Hash LedgerReader::root(const LedgerLog& log, std::uint64_t size) const {
  require(log, size);
  return reading([&] {
    ledger::Hasher hasher;
    return ledger::root_of(nodes(log, hasher), size, hasher);
  });
}

std::vector<Hash> LedgerReader::inclusion_proof(const LedgerLog& log, std::uint64_t index,
                                                std::uint64_t size) const {
  require(log, size);
  return reading([&] {
    ledger::Hasher hasher;
    return ledger::inclusion_proof(nodes(log, hasher), index, size, hasher);
  });
}

std::vector<Hash> LedgerReader::consistency_proof(const LedgerLog& log, std::uint64_t from,
                                                  std::uint64_t to) const {
  require(log, to);
  return reading([&] {
    ledger::Hasher hasher;
    return ledger::consistency_proof(nodes(log, hasher), from, to, hasher);
  });
}

std::vector<Hash> LedgerReader::tile(const LedgerLog& log, int level, std::uint64_t index) const {
  return reading([&] { return stored_tile(log, level, index); });
}

std::vector<std::string> LedgerReader::entries(const LedgerLog& log, std::uint64_t begin,
                                               std::uint64_t end) const {
  require(log, end);
  return reading([&] {
    std::vector<std::string> found;
    if (begin >= end) return found;
    // Which entries are definitions, and which records the others are.
    struct Record {
      std::int64_t key;
      bool is_late;
    };
    std::map<std::uint64_t, std::string> definitions;
    std::vector<Record> records;
    std::int64_t lowest = std::numeric_limits<std::int64_t>::max();
    std::int64_t highest = std::numeric_limits<std::int64_t>::min();
    RecordOrder order(log.writer_key);
    std::uint64_t counted = 0;
    const auto take_records = [&](std::uint64_t until) {
      if (counted < begin) {
        order.skip(std::min(until, begin) - counted);
        counted = std::min(until, begin);
      }
      for (; counted < until; ++counted) {
        const bool is_late = order.is_late();
        records.push_back({order.next(), is_late});
        if (is_late) continue;
        lowest = std::min(lowest, records.back().key);
        highest = std::max(highest, records.back().key);
      }
    };
    const std::int64_t first = first_key(log.writer_key);
    for (const auto rows =
             source_->rows(LedgerTable::entries, first, first + static_cast<std::int64_t>(end) - 1);
         !rows->at_end(); rows->advance()) {
      const auto place = static_cast<std::uint64_t>(rows->key() - first);
      take_records(place);
      std::string definition = text_of(rows->bytes());
      order.define(definition);
      counted = place + 1;
      if (place >= begin) definitions.emplace(place, std::move(definition));
    }
    take_records(end);

    RecordRows rows(*source_, lowest, highest);
    auto next = records.begin();
    for (std::uint64_t index = begin; index < end; ++index) {
      if (const auto definition = definitions.find(index); definition != definitions.end()) {
        found.push_back(std::move(definition->second));
        continue;
      }
      const auto row = rows.find(next->key, next->is_late, [](std::int64_t) {}).row;
      if (row == nullptr) throw FormatError(record_name(next->key) + " of the log is not in the database");
      found.push_back(text_of(row->bytes()));
      ++next;
    }
    return found;
  });
}

namespace {

/// The checkpoints that have to hold, by size: the log's own and the ones from elsewhere.
std::vector<ledger::Checkpoint> checkpoints_of(LogVerdict& verdict,
                                               const std::vector<ledger::VerifierKey>& keys,
                                               const std::vector<ledger::Checkpoint>& against) {
  const LedgerLog& log = verdict.log;
  std::vector<ledger::Checkpoint> checkpoints = against;
  if (!log.checkpoint.empty()) {
    const ledger::Note note = ledger::Note::parse(log.checkpoint);
    const ledger::Checkpoint checkpoint = ledger::Checkpoint::parse(note.text);
    std::string signers;
    for (const ledger::VerifierKey& key : keys) {
      if (note.is_signed_by(key)) signers += (signers.empty() ? "" : ", ") + key.name;
    }
    if (signers.empty()) throw LedgerProblem("its checkpoint is not signed by a key that is trusted here");
    if (checkpoint.origin != log.origin) {
      throw LedgerProblem("its checkpoint is that of " + checkpoint.origin);
    }
    verdict.signed_by = signers;
    verdict.signed_size = checkpoint.size;
    checkpoints.push_back(checkpoint);
  }
  std::sort(checkpoints.begin(), checkpoints.end(),
            [](const auto& a, const auto& b) { return a.size < b.size; });
  if (!checkpoints.empty() && checkpoints.back().size > log.size) {
    verdict.signed_size = std::min(verdict.signed_size, log.size);
    throw LedgerProblem("the log was rewound: it has " + std::to_string(log.size) +
                        " entries, and a checkpoint of " + std::to_string(checkpoints.back().size) +
                        " was signed");
  }
  return checkpoints;
}

}  // namespace

void LedgerReader::verify_into(LogVerdict& verdict, const std::vector<ledger::VerifierKey>& keys,
                               const std::vector<ledger::Checkpoint>& against,
                               const std::function<void(std::uint64_t)>& progress) const {
  const LedgerLog& log = verdict.log;
  const std::vector<ledger::Checkpoint> checkpoints = checkpoints_of(verdict, keys, against);
  LedgerCheck check(*source_, log);
  const std::int64_t first = first_key(log.writer_key);
  const std::int64_t last = first_key(log.writer_key + 1) - 1;
  RecordRows records(*source_, first, last);
  const auto entries = source_->rows(LedgerTable::entries, first, last);
  const auto tiles = source_->rows(LedgerTable::tiles, first, last);
  ledger::LogTail tail;
  ledger::Hasher hasher;
  RecordOrder order(log.writer_key);
  std::set<std::int64_t> waiting;  // rows whose entries come later
  auto checkpoint = checkpoints.begin();
  const auto check_root = [&] {
    for (; checkpoint != checkpoints.end() && checkpoint->size == tail.size(); ++checkpoint) {
      if (tail.root() != checkpoint->root) {
        throw LedgerProblem("its first " + std::to_string(tail.size()) +
                            " entries are not those that a checkpoint was signed for");
      }
    }
  };
  std::vector<Hash> stored;  // the leaves' tile that is gone through
  const auto check_tile = [&](const ledger::Tile& tile) {
    // The leaves were compared one by one.
    const bool holds = tile.level == 0 ? tile.hashes.size() == stored.size()
                                       : stored_tile(log, tile.level, tile.index) == tile.hashes;
    if (!holds) {
      throw LedgerProblem("tile " + std::to_string(tile.level) + "/" + std::to_string(tile.index) +
                          " of its tree was changed");
    }
  };
  for (std::uint64_t index = 0; index < log.size; ++index) {
    if (progress && index % kEntriesAReport == 0) progress(index);
    check_root();
    if (index % ledger::kTileWidth == 0) {
      tail.take_full(check_tile);
      const std::int64_t key = rows::tile_key(log.writer_key, 0, index / ledger::kTileWidth);
      if (tiles->at_end() || tiles->key() != key) {
        throw LedgerProblem("tile 0/" + std::to_string(index / ledger::kTileWidth) +
                            " of its tree is missing");
      }
      stored = ledger::hashes_of(tiles->bytes());
      tiles->advance();
    }
    const auto take = [&](std::span<const std::byte> bytes, const auto& name) {
      const Hash leaf = hasher.leaf(ledger::bytes_of(bytes));
      tail.append_hash(leaf);
      const std::size_t place = index % ledger::kTileWidth;
      if (place >= stored.size() || leaf != stored[place]) {
        throw LedgerProblem(name() + " was changed: its bytes are not those in the log");
      }
    };
    if (!entries->at_end() && entries->key() == first + static_cast<std::int64_t>(index)) {
      const std::string definition = text_of(entries->bytes());
      take(entries->bytes(), [&] { return "definition at entry " + std::to_string(index); });
      order.define(definition);
      check.define(definition);
      entries->advance();
      continue;
    }
    const bool is_late = order.is_late();
    const std::int64_t key = order.next();
    if (is_late) waiting.erase(key);
    const auto [table, row] = records.find(key, is_late, [&](std::int64_t passed) {
      if (!order.is_missing(passed)) throw LedgerProblem(record_name(passed) + " is there twice");
      waiting.insert(passed);
    });
    if (row == nullptr) throw LedgerProblem(record_name(key) + " is missing");
    ++verdict.records;
    take(row->bytes(), [&] { return record_name(key); });
    check.row(table, *row);
    row->advance();
  }
  check_root();
  verdict.root = tail.root();
  const std::optional<std::int64_t> added = waiting.empty() ? records.left() : *waiting.begin();
  if (added) throw LedgerProblem(record_name(*added) + " is not in the log: it was added");
  if (!entries->at_end()) throw LedgerProblem("a definition stands behind the end of the log");
  tail.take_changed(check_tile);
  if (!tiles->at_end() && tiles->key() < rows::tile_key(log.writer_key, 1, 0)) {
    throw LedgerProblem("a tile stands behind the end of its tree");
  }
}

LogVerdict LedgerReader::verify(const LedgerLog& log, const std::vector<ledger::VerifierKey>& keys,
                                const std::vector<ledger::Checkpoint>& against,
                                const std::function<void(std::uint64_t)>& progress) const {
  return reading([&] {
    LogVerdict verdict;
    verdict.log = log;
    try {
      // As it is now: it may have grown since it was looked up.
      std::optional<LedgerLog> now = source_->log(log.writer_key);
      if (!now) throw LedgerProblem("the log is gone");
      verdict.log = std::move(*now);
      verify_into(verdict, keys, against, progress);
    } catch (const LedgerProblem& problem) {
      verdict.problem = problem.what();
    } catch (const FormatError& error) {
      verdict.problem = error.what();
    } catch (const ValueError& error) {
      verdict.problem = error.what();
    }
    return verdict;
  });
}

}  // namespace rubriscope
