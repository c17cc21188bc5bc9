#include "rubriscope/ledger/proof.h"

#include <bit>
#include <string>

#include "rubriscope/core/errors.h"

namespace rubriscope::ledger {

namespace {

// The largest power of two below n, for n > 1: where RFC 9162 splits n leaves.
std::uint64_t split(std::uint64_t n) { return std::bit_floor(n - 1); }

// The root of the leaves [begin, end); `begin` is a multiple of the power of two that covers them.
Hash range_root(const NodeReader& nodes, std::uint64_t begin, std::uint64_t end, Hasher& hasher) {
  const std::uint64_t count = end - begin;
  if (std::has_single_bit(count)) {
    const int level = std::countr_zero(count);
    return nodes(level, begin >> level);
  }
  const std::uint64_t middle = begin + split(count);
  const Hash left = range_root(nodes, begin, middle, hasher);
  return hasher.node(left, range_root(nodes, middle, end, hasher));
}

void include_path(const NodeReader& nodes, std::uint64_t index, std::uint64_t begin, std::uint64_t end,
                  Hasher& hasher, std::vector<Hash>& proof) {
  if (end - begin == 1) return;
  const std::uint64_t middle = begin + split(end - begin);
  if (index < middle) {
    include_path(nodes, index, begin, middle, hasher, proof);
    proof.push_back(range_root(nodes, middle, end, hasher));
  } else {
    include_path(nodes, index, middle, end, hasher, proof);
    proof.push_back(range_root(nodes, begin, middle, hasher));
  }
}

// SUBPROOF of RFC 9162: `known` says that the verifier has the root of [begin, end) already.
void include_subproof(const NodeReader& nodes, std::uint64_t from, std::uint64_t begin, std::uint64_t end,
                      bool known, Hasher& hasher, std::vector<Hash>& proof) {
  if (from == end) {
    if (!known) proof.push_back(range_root(nodes, begin, end, hasher));
    return;
  }
  const std::uint64_t middle = begin + split(end - begin);
  if (from <= middle) {
    include_subproof(nodes, from, begin, middle, known, hasher, proof);
    proof.push_back(range_root(nodes, middle, end, hasher));
  } else {
    include_subproof(nodes, from, middle, end, false, hasher, proof);
    proof.push_back(range_root(nodes, begin, middle, hasher));
  }
}

}  // namespace

Hash root_of(const NodeReader& nodes, std::uint64_t size, Hasher& hasher) {
  return size == 0 ? empty_root() : range_root(nodes, 0, size, hasher);
}

std::vector<Hash> inclusion_proof(const NodeReader& nodes, std::uint64_t index, std::uint64_t size,
                                  Hasher& hasher) {
  if (index >= size) {
    throw ValueError("no leaf " + std::to_string(index) + " in a tree of " + std::to_string(size));
  }
  std::vector<Hash> proof;
  include_path(nodes, index, 0, size, hasher, proof);
  return proof;
}

std::vector<Hash> consistency_proof(const NodeReader& nodes, std::uint64_t from, std::uint64_t to,
                                    Hasher& hasher) {
  if (from > to) {
    throw ValueError("a tree of " + std::to_string(from) + " leaves is no prefix of one of " +
                     std::to_string(to));
  }
  std::vector<Hash> proof;
  if (from != 0 && from != to) include_subproof(nodes, from, 0, to, true, hasher, proof);
  return proof;
}

bool verify_inclusion(const Hash& leaf, std::uint64_t index, std::uint64_t size,
                      const std::vector<Hash>& proof, const Hash& root) {
  if (index >= size) return false;
  Hasher hasher;
  std::uint64_t node = index;
  std::uint64_t last = size - 1;
  Hash hash = leaf;
  for (const Hash& sibling : proof) {
    if (last == 0) return false;
    if ((node & 1) != 0 || node == last) {
      hash = hasher.node(sibling, hash);
      while ((node & 1) == 0 && node != 0) {
        node >>= 1;
        last >>= 1;
      }
    } else {
      hash = hasher.node(hash, sibling);
    }
    node >>= 1;
    last >>= 1;
  }
  return last == 0 && hash == root;
}

bool verify_consistency(std::uint64_t first_size, std::uint64_t second_size, const Hash& first_root,
                        const Hash& second_root, const std::vector<Hash>& proof) {
  if (first_size > second_size) return false;
  if (first_size == 0) {
    return proof.empty() && first_root == empty_root() && (second_size != 0 || second_root == empty_root());
  }
  if (first_size == second_size) return proof.empty() && first_root == second_root;
  std::size_t next = 0;
  // Where the first tree is a full subtree of the second, its root starts the path and is left out.
  const bool starts_known = std::has_single_bit(first_size);
  if (!starts_known && proof.empty()) return false;
  const Hash& start = starts_known ? first_root : proof[next++];
  std::uint64_t node = first_size - 1;
  std::uint64_t last = second_size - 1;
  while ((node & 1) != 0) {
    node >>= 1;
    last >>= 1;
  }
  Hasher hasher;
  Hash first = start;
  Hash second = start;
  for (; next < proof.size(); ++next) {
    if (last == 0) return false;
    const Hash& sibling = proof[next];
    if ((node & 1) != 0 || node == last) {
      first = hasher.node(sibling, first);
      second = hasher.node(sibling, second);
      while ((node & 1) == 0 && node != 0) {
        node >>= 1;
        last >>= 1;
      }
    } else {
      second = hasher.node(second, sibling);
    }
    node >>= 1;
    last >>= 1;
  }
  return last == 0 && first == first_root && second == second_root;
}

}  // namespace rubriscope::ledger
