// The ledgers of a recorded session: their proofs, and whether everything recorded is still what was signed.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "rubriscope/film/ledger_source.h"
#include "rubriscope/ledger/note.h"
#include "rubriscope/ledger/proof.h"

namespace rubriscope {

/// What became of one log.
struct LogVerdict {
  LedgerLog log;                ///< as it was verified
  ledger::Hash root{};          ///< of all its entries, as they are now
  std::uint64_t records{};      ///< steps, scalars and events
  std::uint64_t signed_size{};  ///< entries under the checkpoint
  std::string signed_by;        ///< trusted keys, "a, b"; "" without a checkpoint
  std::string problem;          ///< the first thing that does not hold, "" when everything does

  std::uint64_t unsigned_tail() const { return log.size - signed_size; }
};

/// Any thread, one call at a time.
class LedgerReader {
 public:
  /// An SQLite file. Throws SystemError when there is no such file, FormatError when it is not ours.
  explicit LedgerReader(const std::string& path);
  explicit LedgerReader(std::unique_ptr<LedgerSource> source);
  ~LedgerReader();

  /// The logs of a session (a row's number), in the order its writers were registered.
  std::vector<LedgerLog> logs(std::int64_t session) const;

  /// The writers of a session whose records are in no log though they should (LedgerSource::without_log()).
  std::vector<LedgerLog> without_log(std::int64_t session) const;

  /// Of the first `size` entries of a log, computed from its stored tiles. Throw ValueError for a size or
  /// index beyond the log, FormatError for tiles that are missing.
  ledger::Hash root(const LedgerLog& log, std::uint64_t size) const;
  std::vector<ledger::Hash> inclusion_proof(const LedgerLog& log, std::uint64_t index,
                                            std::uint64_t size) const;
  std::vector<ledger::Hash> consistency_proof(const LedgerLog& log, std::uint64_t from,
                                              std::uint64_t to) const;

  /// The bytes of entries [begin, end). Throws ValueError when there are fewer, FormatError when one is
  /// missing.
  std::vector<std::string> entries(const LedgerLog& log, std::uint64_t begin, std::uint64_t end) const;

  /// The hashes of a stored tile; none where there is no such tile.
  std::vector<ledger::Hash> tile(const LedgerLog& log, int level, std::uint64_t index) const;

  /// Reads every record again and compares it with the log, its row with its bytes, the log with its tiles
  /// and its checkpoint, and with earlier checkpoints of the same log. `keys` are the public keys to trust;
  /// `progress(entries)` is called now and then.
  LogVerdict verify(const LedgerLog& log, const std::vector<ledger::VerifierKey>& keys,
                    const std::vector<ledger::Checkpoint>& against,
                    const std::function<void(std::uint64_t)>& progress) const;

 private:
  template <class Body>
  auto reading(Body&& body) const;
  ledger::NodeReader nodes(const LedgerLog& log, ledger::Hasher& hasher) const;
  std::vector<ledger::Hash> stored_tile(const LedgerLog& log, int level, std::uint64_t index) const;
  void verify_into(LogVerdict& verdict, const std::vector<ledger::VerifierKey>& keys,
                   const std::vector<ledger::Checkpoint>& against,
                   const std::function<void(std::uint64_t)>& progress) const;

  const std::unique_ptr<LedgerSource> source_;
  mutable std::mutex mutex_;
};

}  // namespace rubriscope
