#include "rubriscope/recorder/segment.h"

#include <algorithm>
#include <charconv>
#include <cstring>

#include "rubriscope/core/checksum.h"

namespace rubriscope {

namespace {

constexpr std::size_t kIdentityChecked = offsetof(SegmentIdentity, check);

bool identity_is_valid(const SegmentIdentity& identity, std::uint64_t writer) {
  return identity.check == checksum(&identity, kIdentityChecked) &&
         identity.magic == SegmentIdentity::kMagic && identity.version == SegmentIdentity::kVersion &&
         identity.header_bytes == sizeof(SegmentHeader) && identity.writer == writer;
}

/// The length that the record's own counts imply.
std::uint64_t implied_length(const RecordHeader& header) {
  return sizeof(RecordHeader) + arrays_bytes(header.slots) + padded(header.extras_bytes);
}

}  // namespace

SegmentIdentity make_segment_identity(std::uint64_t index, std::uint64_t size, std::uint64_t floor,
                                      std::uint64_t ceiling, std::uint64_t writer) {
  SegmentIdentity identity{};
  identity.magic = SegmentIdentity::kMagic;
  identity.version = SegmentIdentity::kVersion;
  identity.header_bytes = sizeof(SegmentHeader);
  identity.index = index;
  identity.size = size;
  identity.floor = floor;
  identity.ceiling = ceiling;
  identity.writer = writer;
  identity.check = checksum(&identity, kIdentityChecked);
  return identity;
}

std::uint64_t writer_hash(const std::string& writer_id) {
  const std::uint64_t low = detail::crc32c(writer_id.data(), writer_id.size());
  const std::uint64_t high = checksum(writer_id.data(), writer_id.size());
  return high << 32 | low;
}

std::string segment_name(std::uint64_t index) { return "segment-" + std::to_string(index); }

std::optional<std::uint64_t> segment_index(const std::filesystem::path& path) {
  const std::string name = path.filename();
  constexpr std::string_view kPrefix = "segment-";
  if (!name.starts_with(kPrefix)) return std::nullopt;
  std::uint64_t index = 0;
  const auto [end, error] = std::from_chars(name.data() + kPrefix.size(), name.data() + name.size(), index);
  if (error != std::errc{} || end != name.data() + name.size()) return std::nullopt;
  return index;
}

std::optional<SegmentIdentity> read_segment_identity(const FileBytes& content, std::uint64_t writer) {
  for (const std::size_t offset : {offsetof(SegmentHeader, first), offsetof(SegmentHeader, second)}) {
    if (content.bytes < offset + sizeof(SegmentIdentity)) continue;
    SegmentIdentity identity;
    std::memcpy(&identity, content.data() + offset, sizeof identity);
    if (identity_is_valid(identity, writer)) return identity;
  }
  return std::nullopt;
}

void SegmentWalk::found(std::uint64_t sequence) {
  // Sequences have no gaps, so what is missing before this record was damaged, less what was torn. Before the
  // first record only what was not yet delivered can be missed.
  const std::uint64_t from = any_ ? std::max(next_, released_) : released_;
  if (sequence > from && sequence - from > accounted_) counts_.damaged += sequence - from - accounted_;
  accounted_ = 0;
  next_ = sequence + 1;
  any_ = true;
  ++counts_.records;
}

bool SegmentWalk::walk(FileBytes& content, std::uint64_t index_by_name,
                       const std::function<void(const RecordHeader*)>& visit) {
  auto* const bytes = reinterpret_cast<std::byte*>(content.words.data());
  bool good = true;

  const std::optional<SegmentIdentity> known = read_segment_identity(content, writer_);
  SegmentIdentity identity =
      known ? *known
            : make_segment_identity(index_by_name, content.bytes, released_, ~std::uint64_t{0}, writer_);
  std::uint64_t head = 0;
  std::uint64_t end_sequence = 0;
  if (content.bytes >= sizeof(SegmentHeader)) {
    const auto* header = reinterpret_cast<const SegmentHeader*>(bytes);
    head = header->head;
    end_sequence = header->next_sequence;
    good = known.has_value();
  } else {
    good = false;
  }
  if (content.bytes < identity.size) good = false;

  const std::uint64_t available = content.bytes & ~std::uint64_t{7};
  bool fresh = false;  // a record not delivered before was found in this file

  // A record may stand at any later sequence: those between are lost or torn. A smaller one is left over.
  const auto plausible = [&](const RecordHeader& header) {
    return header.sequence >= std::max(identity.floor, any_ ? next_ : identity.floor) &&
           header.sequence < identity.ceiling;
  };
  const auto valid_at = [&](std::uint64_t at) {
    if (at + sizeof(RecordHeader) > available) return false;
    const auto* header = reinterpret_cast<const RecordHeader*>(bytes + at);
    return plausible(*header) && record_is_valid(header, available - at);
  };

  std::uint64_t at = sizeof(SegmentHeader);
  while (at + sizeof(RecordHeader) <= available) {
    auto* const header = reinterpret_cast<RecordHeader*>(bytes + at);
    bool valid = valid_at(at);
    if (!valid && plausible(*header)) {
      // The length or state itself may be what was damaged: the counts in the header imply the length.
      const std::uint64_t implied = implied_length(*header);
      const std::uint32_t stored = header->length_and_state;
      if (implied <= available - at && implied != header->length()) {
        header->length_and_state = static_cast<std::uint32_t>(implied) | RecordHeader::kCommitted;
        valid = valid_at(at);
        if (valid) {
          good = false;
        } else {
          header->length_and_state = stored;
        }
      }
    }
    if (valid) {
      // Reserved, yet complete: the process died between the checksum and the commit, or the state was
      // damaged. Either way this is the record that was written.
      if (header->state() != RecordHeader::kCommitted && header->state() != RecordHeader::kReserved) {
        good = false;
      }
      fresh = fresh || header->sequence >= released_;
      found(header->sequence);
      visit(header);
      at += header->length();
      continue;
    }

    // Go on behind it: by its length if that leads to a record or to the head, else at the next valid record.
    const std::uint64_t length = header->length();
    const bool length_leads_on = length >= sizeof(RecordHeader) && length <= available - at &&
                                 (at + length == head || valid_at(at + length));
    if (header->state() == RecordHeader::kReserved && plausible(*header) && at < head && length_leads_on) {
      ++counts_.torn;
      ++accounted_;
      at += length;
      continue;
    }
    if (length_leads_on && at < head && valid_at(at + length)) {
      good = false;
      at += length;
      continue;
    }
    std::uint64_t next = at + 8;
    while (next + sizeof(RecordHeader) <= available && !valid_at(next)) next += 8;
    if (next + sizeof(RecordHeader) > available) break;
    good = false;
    at = next;
  }

  // Whatever the head says lies behind the last record and was not delivered before is lost.
  const std::uint64_t reached = any_ ? std::max(next_, released_) : released_;
  if (at < head && end_sequence > reached) {
    good = false;
    const std::uint64_t most = (head - at) / sizeof(RecordHeader);
    const std::uint64_t claimed = end_sequence - reached;
    const std::uint64_t lost = claimed <= most ? claimed : 1;
    if (lost > accounted_) {
      counts_.damaged += lost - accounted_;
      accounted_ = lost;
    }
  } else if (at > head && fresh) {
    good = false;  // the head was damaged; nothing is lost
  }
  return good;
}

}  // namespace rubriscope
