// Oracle: the log that takes the same entries one by one, itself tested against RFC 6962's definition.
#include <gtest/gtest.h>

#include <random>
#include <string>
#include <thread>
#include <vector>

#include "rubriscope/ledger/leaf_queue.h"

namespace rubriscope::ledger {
namespace {

using namespace std::chrono_literals;

std::string random_entry(std::mt19937_64& random, std::size_t bytes) {
  std::string entry = std::to_string(random());
  entry.resize(bytes, static_cast<char>(random()));
  return entry;
}

std::vector<Tile> changed_tiles(LogTail& tail) {
  std::vector<Tile> tiles;
  tail.take_changed([&](const Tile& tile) { tiles.push_back(tile); });
  return tiles;
}

void expect_same(LogTail& found, LogTail& expected) {
  ASSERT_EQ(found.size(), expected.size());
  EXPECT_EQ(found.root(), expected.root());
  const std::vector<Tile> tiles = changed_tiles(found);
  const std::vector<Tile> wanted = changed_tiles(expected);
  ASSERT_EQ(tiles.size(), wanted.size());
  for (std::size_t i = 0; i < tiles.size(); ++i) {
    EXPECT_EQ(tiles[i].level, wanted[i].level);
    EXPECT_EQ(tiles[i].index, wanted[i].index);
    EXPECT_EQ(tiles[i].hashes, wanted[i].hashes);
  }
}

/// Brings `counts` entries into one log through the queue, a run after the other, and into another directly.
void compare(const std::vector<std::size_t>& counts, std::size_t longest, std::chrono::microseconds pause) {
  std::mt19937_64 random(7);
  LeafQueue queue;
  LogTail found, expected;
  std::uint64_t place = 0;
  for (const std::size_t count : counts) {
    for (std::size_t i = 0; i < count; ++i) {
      const std::string entry = random_entry(random, random() % (longest + 1));
      queue.add(bytes_of(entry), place++);
      expected.append(bytes_of(entry));
      if (i % kTileWidth == 0) std::this_thread::sleep_for(pause);
    }
    queue.append_to(found);
    expect_same(found, expected);
  }
}

TEST(LeafQueue, ALogIsTheSameAsWithoutIt) {
  compare({1, 0, 1, 254, 1, 255, 256, 257, 2, 510, 2}, 400, 0us);
  compare({5000, 3, 8192, 8192}, 400, 0us);
}

TEST(LeafQueue, ItsThreadHashesTheSame) {
  // The caller is slow enough for the other thread to take what there is.
  compare({8192, 100, 4000}, 400, 2000us);
}

TEST(LeafQueue, LongEntriesMakePiecesThatAreNoTiles) {
  compare({700, 700}, 20'000, 0us);
  compare({5, 20}, 3 << 20, 0us);
}

TEST(LeafQueue, MayBeLeftInTheMiddle) {
  std::mt19937_64 random(7);
  for (const std::size_t count : {1, 600, 5000}) {
    LeafQueue queue;
    for (std::size_t i = 0; i < count; ++i) queue.add(bytes_of(random_entry(random, 300)), i);
  }
}

TEST(LogTail, ATileStandsOnlyWhereOneBegins) {
  LogTail tail;
  tail.append(bytes_of(std::string_view("x")));
  EXPECT_ANY_THROW(tail.append_tile(std::vector<Hash>(kTileWidth), Hash{}));
  LogTail other;
  EXPECT_ANY_THROW(other.append_tile(std::vector<Hash>(kTileWidth - 1), Hash{}));
}

}  // namespace
}  // namespace rubriscope::ledger
