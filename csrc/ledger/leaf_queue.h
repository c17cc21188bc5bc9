// Entries on their way into a log. Hashing a record and storing it need nothing of each other: a second
// thread hashes while the first goes on storing.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "rubriscope/ledger/hash.h"
#include "rubriscope/ledger/log.h"

namespace rubriscope::ledger {

/// For one thread; the other one is its own, lives from the second full piece until append_to() and never
/// outlives a transaction: a process that forks between two has none.
class LeafQueue {
 public:
  /// What is hashed at once: the leaves of one tile, or fewer when they are long.
  static constexpr std::size_t kPieceBytes = std::size_t{1} << 20;
  /// Pieces that wait for the other thread; then the caller hashes one itself.
  static constexpr std::size_t kAhead = 4;

  LeafQueue() = default;
  ~LeafQueue();
  LeafQueue(const LeafQueue&) = delete;
  LeafQueue& operator=(const LeafQueue&) = delete;

  /// Takes a copy of the entry that comes to stand at `place` of the log; one after the other.
  void add(Bytes entry, std::uint64_t place);

  /// Adds what add() took to the log, in that order. Throws Error when hashing failed.
  void append_to(LogTail& tail);

 private:
  struct Piece {
    std::vector<std::uint8_t> messages;  // what is hashed for each leaf, one after the other
    std::vector<std::size_t> ends;
    std::vector<Hash> hashes;
    std::optional<Hash> root;  // where the piece is a whole tile
    bool whole{};
    bool done{};
  };

  void publish();
  void start();
  void stop();
  void work();
  bool hash_next(std::unique_lock<std::mutex>& lock, Hasher& hasher);

  Hasher hasher_;                // the caller's
  std::unique_ptr<Piece> open_;  // the caller's
  std::thread thread_;

  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::unique_ptr<Piece>> pieces_;  // in order
  std::size_t next_{0};                         // of pieces_: the first that nobody has begun
  std::vector<std::unique_ptr<Piece>> spare_;   // kept for their memory
  std::exception_ptr error_;
  bool ending_{false};
};

}  // namespace rubriscope::ledger
