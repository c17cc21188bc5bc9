// The growing end of one log: leaves are added here, and the tree's nodes leave it in tiles
// (c2sp.org/tlog-tiles): tile (level, index) holds the roots of up to 256 neighbouring subtrees of 256^level
// leaves.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "rubriscope/core/ids.h"
#include "rubriscope/core/schema.h"
#include "rubriscope/ledger/hash.h"
#include "rubriscope/ledger/proof.h"

namespace rubriscope::ledger {

inline constexpr int kTileHeight = 8;
inline constexpr std::size_t kTileWidth = std::size_t{1} << kTileHeight;

struct Tile {
  int level{};
  std::uint64_t index{};
  std::vector<Hash> hashes;  ///< of full subtrees; kTileWidth of them when the tile is full
};

/// The hashes of a tile as they are stored, one after the other. Throws FormatError for half a hash.
std::vector<Hash> hashes_of(std::span<const std::byte> stored);

/// How many hashes tile (level, index) of a log of `size` leaves holds.
std::size_t tile_width(std::uint64_t size, int level, std::uint64_t index);

/// Reads a node of any level out of tiles. `tile(level, index)` gives a tile's hashes, at least those of
/// tile_width().
NodeReader nodes_in_tiles(std::function<std::vector<Hash>(int level, std::uint64_t index)> tile,
                          Hasher& hasher);

/// The places of the tiles at the edge of a log, one a level: they hold tile_width() hashes, 0 where the last
/// tile of a level is full. `hashes` is empty.
std::vector<Tile> edge_of(std::uint64_t size);

/// The root of a full subtree of 2^height hashes.
Hash subtree_root(const Hash* hashes, int height, Hasher& hasher);

/// Not for several threads at once.
class LogTail {
 public:
  LogTail() = default;
  /// Goes on where a log stands: `edge` are the tiles of edge_of(), with their hashes. Throws FormatError
  /// when they do not fit the size.
  LogTail(std::uint64_t size, std::vector<Tile> edge);

  /// Adds an entry; returns its index.
  std::uint64_t append(Bytes entry) { return append_hash(hasher_.leaf(entry)); }
  /// Adds an entry by its leaf's hash.
  std::uint64_t append_hash(const Hash& leaf);
  /// Adds a whole tile of leaves, whose root is known, where one begins.
  void append_tile(std::vector<Hash> leaves, const Hash& root);

  std::uint64_t size() const { return size_; }
  Hash root();

  /// Hands the tiles that became full since the last call to `store(const Tile&)`.
  template <class Store>
  void take_full(Store&& store) {
    for (const Tile& tile : full_) store(tile);
    full_.clear();
  }

  /// Hands the tiles that changed since the last call to `store(const Tile&)`: the full ones once, the
  /// partial ones at the edge each time.
  template <class Store>
  void take_changed(Store&& store) {
    take_full(store);
    for (const Tile& tile : edge_) {
      if (!tile.hashes.empty()) store(tile);
    }
  }

 private:
  void push(std::size_t level, const Hash& hash);
  void fill(std::size_t level, std::vector<Hash> hashes, const Hash& root);

  Hasher hasher_;
  std::uint64_t size_{0};
  std::vector<Tile> edge_;  // by level; what is not yet a full tile
  std::vector<Tile> full_;  // since the last take_changed()
};

/// Key 1 of the entries that are no records (docs/formats.md).
enum class EntryKind : std::uint64_t { writer = 3, schema = 4, gap = 5, late = 6 };

/// What a log is called in its checkpoints.
std::string origin_of(const SessionInfo& session, const WriterInfo& writer);
std::string origin_of(std::string_view session_id, std::string_view writer_id);

/// A log's first entry: who writes it. Canonical CBOR, docs/formats.md.
std::string writer_entry(const SessionInfo& session, const WriterInfo& writer);
/// Says that the records from `first` to `last` did not come: they were damaged, or come late.
std::string gap_entry(const SessionInfo& session, const WriterInfo& writer, std::uint64_t first,
                      std::uint64_t last);
/// Says that the entry behind it is a record of a gap, which came after all.
std::string late_entry(const SessionInfo& session, const WriterInfo& writer, std::uint64_t sequence);
/// The entry that stands before the first record of a schema.
std::string schema_entry(const SessionInfo& session, const WriterInfo& writer, const Schema& schema);

}  // namespace rubriscope::ledger
