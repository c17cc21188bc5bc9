#include "rubriscope/core/record.h"

namespace rubriscope {

bool record_is_valid(const RecordHeader* header, std::size_t available) {
  if (available < sizeof(RecordHeader)) return false;
  const std::uint64_t length = header->length();
  const std::uint64_t content =
      sizeof(RecordHeader) + arrays_bytes(header->slots) + std::uint64_t{header->extras_bytes};
  if (length > available || content > length) return false;
  return header->checksum == checksum(reinterpret_cast<const std::byte*>(header) + 8, length - 8);
}

}  // namespace rubriscope
