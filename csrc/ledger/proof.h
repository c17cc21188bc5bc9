// Roots and proofs of RFC 6962 / RFC 9162 trees, wherever their nodes are kept, and how proofs are verified.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "rubriscope/ledger/hash.h"

namespace rubriscope::ledger {

/// Gives the hash of a full subtree: `level` 0 are the leaves, node `index` of level k covers the leaves
/// [index·2^k, (index+1)·2^k). Asked only for nodes whose leaves all lie in the tree.
using NodeReader = std::function<Hash(int level, std::uint64_t index)>;

/// The root of the first `size` leaves (RFC 9162 §2.1.1).
Hash root_of(const NodeReader& nodes, std::uint64_t size, Hasher& hasher);

/// The inclusion proof of leaf `index` in the tree of `size` leaves (RFC 9162 §2.1.3.1), from the leaf
/// upwards. Throws ValueError unless index < size.
std::vector<Hash> inclusion_proof(const NodeReader& nodes, std::uint64_t index, std::uint64_t size,
                                  Hasher& hasher);

/// The proof that the tree of `from` leaves is a prefix of that of `to` leaves (RFC 9162 §2.1.4.1); empty
/// where from == to or from == 0. Throws ValueError unless from <= to.
std::vector<Hash> consistency_proof(const NodeReader& nodes, std::uint64_t from, std::uint64_t to,
                                    Hasher& hasher);

/// Whether `proof` shows that a leaf with this hash is number `index` of the tree with this root
/// (RFC 9162 §2.1.3.2).
bool verify_inclusion(const Hash& leaf, std::uint64_t index, std::uint64_t size,
                      const std::vector<Hash>& proof, const Hash& root);

/// Whether `proof` shows that the tree with `first_root` is a prefix of that with `second_root`
/// (RFC 9162 §2.1.4.2). The empty tree is a prefix of every tree, with an empty proof.
bool verify_consistency(std::uint64_t first_size, std::uint64_t second_size, const Hash& first_root,
                        const Hash& second_root, const std::vector<Hash>& proof);

}  // namespace rubriscope::ledger
