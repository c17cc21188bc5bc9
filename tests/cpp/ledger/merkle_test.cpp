// Oracles: the eight inputs and roots of the public Certificate Transparency reference tests, RFC 6962's own
// recursive definition written down again, and the property that nothing but the true proof verifies.
#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "rubriscope/core/errors.h"
#include "rubriscope/ledger/merkle_tree.h"

namespace rubriscope::ledger {
namespace {

std::string unhex(const std::string& hex) {
  std::string bytes;
  for (std::size_t i = 0; i < hex.size(); i += 2)
    bytes += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
  return bytes;
}

// MTH of RFC 6962 §2.1, word for word.
Hash definition(const std::vector<std::string>& entries, std::size_t begin, std::size_t end) {
  Hasher hasher;
  if (begin == end) return hasher.plain({});
  if (end - begin == 1) return hasher.leaf(bytes_of(entries[begin]));
  std::size_t k = 1;
  while (2 * k < end - begin) k *= 2;
  return hasher.node(definition(entries, begin, begin + k), definition(entries, begin + k, end));
}

std::vector<std::string> random_entries(std::size_t count, std::mt19937_64& random) {
  std::vector<std::string> entries(count);
  for (auto& entry : entries) {
    entry.resize(random() % 80);
    for (char& byte : entry) byte = static_cast<char>(random());
  }
  return entries;
}

MerkleTree tree_of(const std::vector<std::string>& entries) {
  MerkleTree tree;
  for (const auto& entry : entries) tree.append(bytes_of(entry));
  return tree;
}

TEST(MerkleTree, MatchesThePublicReferenceVectors) {
  const std::vector<std::string> inputs = {
      "", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"};
  const std::vector<std::string> roots = {"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
                                          "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
                                          "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
                                          "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
                                          "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
                                          "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
                                          "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
                                          "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
                                          "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"};
  MerkleTree tree;
  EXPECT_EQ(to_hex(tree.root()), roots[0]);
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    EXPECT_EQ(tree.append(bytes_of(unhex(inputs[i]))), i);
    EXPECT_EQ(to_hex(tree.root()), roots[i + 1]);
  }
  for (std::size_t size = 0; size < roots.size(); ++size) EXPECT_EQ(to_hex(tree.root(size)), roots[size]);
}

TEST(MerkleTree, RootsAreThoseOfTheDefinition) {
  std::mt19937_64 random(1);
  const auto entries = random_entries(130, random);
  MerkleTree tree = tree_of(entries);
  for (std::size_t size = 0; size <= entries.size(); ++size) {
    EXPECT_EQ(tree.root(size), definition(entries, 0, size)) << size;
  }
}

TEST(MerkleTree, AllProofsOfSmallTreesVerifyAndNoOthers) {
  std::mt19937_64 random(2);
  const auto entries = random_entries(33, random);
  MerkleTree tree = tree_of(entries);
  Hasher hasher;
  for (std::uint64_t size = 1; size <= entries.size(); ++size) {
    const Hash root = tree.root(size);
    for (std::uint64_t index = 0; index < size; ++index) {
      const Hash leaf = hasher.leaf(bytes_of(entries[index]));
      const auto proof = tree.inclusion_proof(index, size);
      EXPECT_TRUE(verify_inclusion(leaf, index, size, proof, root));
      for (std::uint64_t other = 0; other < size; ++other) {
        if (other == index) continue;
        EXPECT_FALSE(verify_inclusion(leaf, other, size, proof, root));
      }
      auto longer = proof;
      longer.push_back(root);
      EXPECT_FALSE(verify_inclusion(leaf, index, size, longer, root));
      if (!proof.empty()) {
        auto shorter = proof;
        shorter.pop_back();
        EXPECT_FALSE(verify_inclusion(leaf, index, size, shorter, root));
      }
    }
    for (std::uint64_t from = 0; from <= size; ++from) {
      const auto proof = tree.consistency_proof(from, size);
      EXPECT_TRUE(verify_consistency(from, size, tree.root(from), root, proof)) << from << " to " << size;
      auto longer = proof;
      longer.push_back(root);
      EXPECT_FALSE(verify_consistency(from, size, tree.root(from), root, longer));
    }
  }
}

// Every bit of the proof, of the leaf and of the roots counts.
TEST(MerkleTree, EverySingleBitChangeFails) {
  std::mt19937_64 random(3);
  for (const std::size_t count : {2u, 3u, 7u, 8u, 100u, 1023u, 5000u}) {
    const auto entries = random_entries(count, random);
    MerkleTree tree = tree_of(entries);
    const Hash root = tree.root();
    const std::uint64_t index = random() % count;
    const Hash leaf = Hasher().leaf(bytes_of(entries[index]));
    const auto proof = tree.inclusion_proof(index);
    const auto flipped = [](Hash hash, std::size_t bit) {
      hash[bit / 8] ^= static_cast<std::uint8_t>(1 << (bit % 8));
      return hash;
    };
    for (std::size_t bit = 0; bit < 256; ++bit) {
      EXPECT_FALSE(verify_inclusion(flipped(leaf, bit), index, count, proof, root));
      EXPECT_FALSE(verify_inclusion(leaf, index, count, proof, flipped(root, bit)));
    }
    for (std::size_t step = 0; step < proof.size(); ++step) {
      for (std::size_t bit = 0; bit < 256; ++bit) {
        auto changed = proof;
        changed[step] = flipped(changed[step], bit);
        EXPECT_FALSE(verify_inclusion(leaf, index, count, changed, root));
      }
    }
    const std::uint64_t from = 1 + random() % (count - 1);
    const Hash before = tree.root(from);
    const auto consistency = tree.consistency_proof(from);
    EXPECT_TRUE(verify_consistency(from, count, before, root, consistency));
    for (std::size_t bit = 0; bit < 256; ++bit) {
      EXPECT_FALSE(verify_consistency(from, count, flipped(before, bit), root, consistency));
      EXPECT_FALSE(verify_consistency(from, count, before, flipped(root, bit), consistency));
    }
    for (std::size_t step = 0; step < consistency.size(); ++step) {
      for (std::size_t bit = 0; bit < 256; ++bit) {
        auto changed = consistency;
        changed[step] = flipped(changed[step], bit);
        EXPECT_FALSE(verify_consistency(from, count, before, root, changed));
      }
    }
  }
}

TEST(MerkleTree, RandomTreesProveAllTheirLeavesAndPrefixes) {
  std::mt19937_64 random(4);
  for (int round = 0; round < 4; ++round) {
    const std::size_t count = 1 + random() % 5000;
    const auto entries = random_entries(count, random);
    MerkleTree tree = tree_of(entries);
    const Hash root = tree.root();
    Hasher hasher;
    for (std::uint64_t index = 0; index < count; ++index) {
      ASSERT_TRUE(verify_inclusion(hasher.leaf(bytes_of(entries[index])), index, count,
                                   tree.inclusion_proof(index), root));
      ASSERT_TRUE(verify_consistency(index + 1, count, tree.root(index + 1), root,
                                     tree.consistency_proof(index + 1)));
    }
  }
}

TEST(MerkleTree, RefusesWhatItDoesNotHave) {
  MerkleTree tree;
  EXPECT_THROW(tree.inclusion_proof(0), ValueError);
  tree.append(bytes_of("a"));
  EXPECT_THROW(tree.inclusion_proof(1), ValueError);
  EXPECT_THROW(tree.root(2), ValueError);
  EXPECT_THROW(tree.consistency_proof(1, 2), ValueError);
  EXPECT_THROW(tree.consistency_proof(2, 1), ValueError);
}

}  // namespace
}  // namespace rubriscope::ledger
