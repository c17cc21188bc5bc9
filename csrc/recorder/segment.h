// A journal file: a header and then records, back to back. The format, and the walk over the files of a
// writer that died. See docs/formats.md.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>

#include "rubriscope/core/record.h"
#include "rubriscope/recorder/file.h"

namespace rubriscope {

/// What does not change while a segment is in use. Two copies in the header, so that no single flipped byte
/// makes a segment unreadable.
struct SegmentIdentity {
  static constexpr std::uint64_t kMagic = 0x3153474D50435352;  // "RSCPMGS1"
  static constexpr std::uint32_t kVersion = 1;

  std::uint64_t magic;
  std::uint32_t version;
  std::uint32_t header_bytes;
  std::uint64_t index;    ///< order among the writer's segments
  std::uint64_t size;     ///< of the file
  std::uint64_t floor;    ///< bytes of records with a smaller sequence are left over from an earlier lap
  std::uint64_t ceiling;  ///< no record in this segment can have this sequence or a larger one
  std::uint64_t writer;   ///< hash of the writer id
  std::uint32_t reserved;
  std::uint32_t check;  ///< checksum() of the bytes before it
};
static_assert(sizeof(SegmentIdentity) == 64);

struct SegmentHeader {
  SegmentIdentity first;
  std::uint64_t head;           ///< offset of the end of the last reserved record
  std::uint64_t next_sequence;  ///< one past the last reserved record's; tells how many a truncation cut off
  std::uint64_t padding0[6];
  SegmentIdentity second;
  std::uint64_t padding1[8];
};
static_assert(sizeof(SegmentHeader) == 256);

/// Fills in magic, version, sizes and check.
SegmentIdentity make_segment_identity(std::uint64_t index, std::uint64_t size, std::uint64_t floor,
                                      std::uint64_t ceiling, std::uint64_t writer);

/// The hash of a writer id used in SegmentIdentity::writer.
std::uint64_t writer_hash(const std::string& writer_id);

/// "segment-<index>".
std::string segment_name(std::uint64_t index);

/// The index in a file's name, or nullopt when it is not a segment's name.
std::optional<std::uint64_t> segment_index(const std::filesystem::path& path);

/// What a walk over a writer's segments found.
struct WalkCounts {
  std::uint64_t records{};  ///< given to visit
  std::uint64_t torn{};     ///< reserved, not committed
  std::uint64_t damaged{};  ///< committed as far as one can tell, but the bytes are bad or missing
};

/// Walks the segments of one dead writer in order.
class SegmentWalk {
 public:
  /// Records below `released` were delivered before: they are visited when they are there, and not missed
  /// when they are not.
  SegmentWalk(std::uint64_t writer, std::uint64_t released)
      : writer_(writer), released_(released), next_(released) {}

  /// Calls visit for each complete record of the file, in order; the header is valid during the call. Returns
  /// false when the file is damaged (also where no record was lost). `content` may be changed (a damaged
  /// length is put right).
  bool walk(FileBytes& content, std::uint64_t index_by_name,
            const std::function<void(const RecordHeader*)>& visit);

  const WalkCounts& counts() const { return counts_; }

 private:
  void found(std::uint64_t sequence);

  std::uint64_t writer_;
  std::uint64_t released_;
  std::uint64_t next_;          // one past the last record found
  bool any_{false};             // a record was found
  std::uint64_t accounted_{0};  // torn and damaged records counted since then
  WalkCounts counts_;
};

/// The identity in a segment's bytes: the first good copy.
std::optional<SegmentIdentity> read_segment_identity(const FileBytes& content, std::uint64_t writer);

}  // namespace rubriscope
