#include "rubriscope/ledger/merkle_tree.h"

#include <string>

#include "rubriscope/core/errors.h"

namespace rubriscope::ledger {

std::uint64_t MerkleTree::append_hash(const Hash& leaf) {
  Hash hash = leaf;
  for (std::size_t level = 0;; ++level) {
    if (level == levels_.size()) levels_.emplace_back();
    std::vector<Hash>& nodes = levels_[level];
    nodes.push_back(hash);
    if (nodes.size() % 2 != 0) return levels_[0].size() - 1;
    hash = hasher_.node(nodes[nodes.size() - 2], nodes[nodes.size() - 1]);
  }
}

Hash MerkleTree::root(std::optional<std::uint64_t> size) { return root_of(reader(), checked(size), hasher_); }

std::vector<Hash> MerkleTree::inclusion_proof(std::uint64_t index, std::optional<std::uint64_t> size) {
  return ledger::inclusion_proof(reader(), index, checked(size), hasher_);
}

std::vector<Hash> MerkleTree::consistency_proof(std::uint64_t from, std::optional<std::uint64_t> to) {
  return ledger::consistency_proof(reader(), from, checked(to), hasher_);
}

std::uint64_t MerkleTree::checked(std::optional<std::uint64_t> wanted) const {
  if (wanted && *wanted > size()) {
    throw ValueError("the tree has " + std::to_string(size()) + " leaves, not " + std::to_string(*wanted));
  }
  return wanted.value_or(size());
}

NodeReader MerkleTree::reader() const {
  return [this](int level, std::uint64_t index) { return levels_[static_cast<std::size_t>(level)][index]; };
}

}  // namespace rubriscope::ledger
