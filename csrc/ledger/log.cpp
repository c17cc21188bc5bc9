#include "rubriscope/ledger/log.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "rubriscope/core/cbor.h"
#include "rubriscope/core/errors.h"
#include "rubriscope/core/json.h"

namespace rubriscope::ledger {

Hash subtree_root(const Hash* hashes, int height, Hasher& hasher) {
  std::vector<Hash> nodes(hashes, hashes + (std::size_t{1} << height));
  for (std::size_t count = nodes.size(); count > 1; count /= 2) {
    for (std::size_t i = 0; i < count / 2; ++i) nodes[i] = hasher.node(nodes[2 * i], nodes[2 * i + 1]);
  }
  return nodes[0];
}

std::size_t tile_width(std::uint64_t size, int level, std::uint64_t index) {
  const std::uint64_t subtrees = level * kTileHeight < 64 ? size >> (level * kTileHeight) : 0;
  const std::uint64_t first = index << kTileHeight;
  return subtrees <= first ? 0
                           : static_cast<std::size_t>(std::min<std::uint64_t>(subtrees - first, kTileWidth));
}

NodeReader nodes_in_tiles(std::function<std::vector<Hash>(int, std::uint64_t)> tile, Hasher& hasher) {
  return [tile = std::move(tile), &hasher](int level, std::uint64_t index) {
    const int tile_level = level / kTileHeight;
    const int height = level % kTileHeight;
    const std::uint64_t first = index << height;
    const std::vector<Hash> hashes = tile(tile_level, first >> kTileHeight);
    const std::size_t begin = first & (kTileWidth - 1);
    if (begin + (std::size_t{1} << height) > hashes.size()) {
      throw FormatError("tile " + std::to_string(tile_level) + "/" + std::to_string(first >> kTileHeight) +
                        " of the ledger is cut short");
    }
    return subtree_root(hashes.data() + begin, height, hasher);
  };
}

std::vector<Hash> hashes_of(std::span<const std::byte> stored) {
  std::vector<Hash> hashes(stored.size() / sizeof(Hash));
  if (hashes.size() * sizeof(Hash) != stored.size()) {
    throw FormatError("a tile of the ledger holds half a hash");
  }
  if (!hashes.empty()) std::memcpy(hashes.data(), stored.data(), stored.size());
  return hashes;
}

std::vector<Tile> edge_of(std::uint64_t size) {
  std::vector<Tile> edge;
  for (std::uint64_t subtrees = size; subtrees != 0; subtrees >>= kTileHeight) {
    edge.push_back({static_cast<int>(edge.size()), subtrees >> kTileHeight, {}});
  }
  return edge;
}

LogTail::LogTail(std::uint64_t size, std::vector<Tile> edge) : size_(size), edge_(std::move(edge)) {
  const std::vector<Tile> places = edge_of(size_);
  for (std::size_t level = 0; level < std::max(edge_.size(), places.size()); ++level) {
    const bool fits = level < edge_.size() && level < places.size() &&
                      edge_[level].level == places[level].level &&
                      edge_[level].index == places[level].index &&
                      edge_[level].hashes.size() == tile_width(size_, edge_[level].level, edge_[level].index);
    if (!fits) {
      throw FormatError("the ledger's tiles of level " + std::to_string(level) + " do not fit its size " +
                        std::to_string(size_));
    }
  }
}

std::uint64_t LogTail::append_hash(const Hash& leaf) {
  push(0, leaf);
  return size_++;
}

void LogTail::append_tile(std::vector<Hash> leaves, const Hash& root) {
  if (size_ % kTileWidth != 0 || leaves.size() != kTileWidth)
    throw Error("a tile of leaves at a wrong place");
  if (edge_.empty()) edge_.push_back({0, 0, {}});
  fill(0, std::move(leaves), root);
  size_ += kTileWidth;
}

void LogTail::push(std::size_t level, const Hash& hash) {
  if (level == edge_.size()) edge_.push_back({static_cast<int>(level), 0, {}});
  Tile& tile = edge_[level];
  tile.hashes.reserve(kTileWidth);
  tile.hashes.push_back(hash);
  if (tile.hashes.size() < kTileWidth) return;
  const Hash root = subtree_root(tile.hashes.data(), kTileHeight, hasher_);
  fill(level, std::exchange(tile.hashes, {}), root);
}

void LogTail::fill(std::size_t level, std::vector<Hash> hashes, const Hash& root) {
  Tile& tile = edge_[level];
  full_.push_back({tile.level, tile.index, std::move(hashes)});
  ++tile.index;
  push(level + 1, root);
}

Hash LogTail::root() {
  // Asked only for nodes at the edge: the full subtrees that the size is made of.
  const NodeReader nodes = nodes_in_tiles(
      [this](int level, std::uint64_t) { return edge_[static_cast<std::size_t>(level)].hashes; }, hasher_);
  return root_of(nodes, size_, hasher_);
}

std::string origin_of(std::string_view session_id, std::string_view writer_id) {
  return "rubriscope/" + std::string(session_id) + "/" + std::string(writer_id);
}

std::string origin_of(const SessionInfo& session, const WriterInfo& writer) {
  return origin_of(session.id, writer.id);
}

namespace {

// Writes an entry's map; keys come in ascending order.
class EntryMap {
 public:
  EntryMap(std::uint64_t pairs, EntryKind kind, const SessionInfo& session, const WriterInfo& writer) {
    head(cbor::Major::map, pairs);
    integer(0, 1);
    integer(1, static_cast<std::int64_t>(kind));
    id(2, session.id);
    id(3, writer.id);
  }

  void integer(std::uint64_t key, std::int64_t value) {
    head(cbor::Major::unsigned_integer, key);
    std::byte item[9];
    append(item, cbor::put_integer(item, value));
  }
  void text(std::uint64_t key, std::string_view value) {
    std::string valid;
    append_valid_utf8(valid, value);
    head(cbor::Major::unsigned_integer, key);
    head(cbor::Major::text_string, valid.size());
    bytes_ += valid;
  }
  std::string take() { return std::move(bytes_); }

 private:
  void head(cbor::Major major, std::uint64_t argument) {
    std::byte item[9];
    append(item, cbor::put_head(item, major, argument));
  }
  void id(std::uint64_t key, std::string_view uuid) {
    const UuidBytes raw = uuid_bytes(uuid);
    head(cbor::Major::unsigned_integer, key);
    head(cbor::Major::byte_string, raw.size());
    bytes_.append(reinterpret_cast<const char*>(raw.data()), raw.size());
  }
  void append(const std::byte* begin, const std::byte* end) {
    bytes_.append(reinterpret_cast<const char*>(begin), static_cast<std::size_t>(end - begin));
  }

  std::string bytes_;
};

}  // namespace

std::string writer_entry(const SessionInfo& session, const WriterInfo& writer) {
  EntryMap map(12, EntryKind::writer, session, writer);
  map.text(24, session.name);
  map.integer(25, session.created_ns);
  std::string metadata;
  append_json_value(metadata, session.metadata_json.empty() ? "{}" : session.metadata_json);
  map.text(26, metadata);
  map.integer(27, writer.rank);
  map.integer(28, writer.world_size);
  map.text(29, writer.host);
  map.integer(30, writer.pid);
  map.integer(31, writer.started_ns);
  return map.take();
}

std::string gap_entry(const SessionInfo& session, const WriterInfo& writer, std::uint64_t first,
                      std::uint64_t last) {
  EntryMap map(6, EntryKind::gap, session, writer);
  map.integer(33, static_cast<std::int64_t>(first));
  map.integer(34, static_cast<std::int64_t>(last));
  return map.take();
}

std::string late_entry(const SessionInfo& session, const WriterInfo& writer, std::uint64_t sequence) {
  EntryMap map(5, EntryKind::late, session, writer);
  map.integer(33, static_cast<std::int64_t>(sequence));
  return map.take();
}

std::string schema_entry(const SessionInfo& session, const WriterInfo& writer, const Schema& schema) {
  EntryMap map(6, EntryKind::schema, session, writer);
  map.integer(5, schema.id);
  map.text(32, schema.definition_json());
  return map.take();
}

}  // namespace rubriscope::ledger
