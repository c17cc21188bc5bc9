// The Merkle tree of RFC 6962 over a growing list of entries, all of its nodes in memory.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "rubriscope/ledger/hash.h"
#include "rubriscope/ledger/proof.h"

namespace rubriscope::ledger {

/// Keeps 64 bytes a leaf. Not for several threads at once.
class MerkleTree {
 public:
  /// Adds an entry; returns its index.
  std::uint64_t append(Bytes entry) { return append_hash(hasher_.leaf(entry)); }
  /// Adds a leaf by its hash.
  std::uint64_t append_hash(const Hash& leaf);

  std::uint64_t size() const { return levels_.empty() ? 0 : levels_[0].size(); }

  /// The root of the first `size` leaves, of all when not given. Throws ValueError when there are fewer.
  Hash root(std::optional<std::uint64_t> size = std::nullopt);

  /// Throw ValueError for an index or a size that the tree does not have.
  std::vector<Hash> inclusion_proof(std::uint64_t index, std::optional<std::uint64_t> size = std::nullopt);
  std::vector<Hash> consistency_proof(std::uint64_t from, std::optional<std::uint64_t> to = std::nullopt);

 private:
  std::uint64_t checked(std::optional<std::uint64_t> size) const;
  NodeReader reader() const;

  Hasher hasher_;
  std::vector<std::vector<Hash>> levels_;  // the full subtrees: levels_[k][i] covers [i·2^k, (i+1)·2^k)
};

}  // namespace rubriscope::ledger
