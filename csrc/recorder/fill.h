// What everyone who writes a record into reserved room shares.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>

#include "rubriscope/core/record.h"
#include "rubriscope/recorder/position.h"

namespace rubriscope {

/// The kernel's number of this thread; asked for once.
std::uint32_t thread_id();

/// Fills what a header says of kind, schema, thread and place in the run. Not the times.
void fill_header(RecordHeader& header, RecordKind kind, std::size_t slots, std::uint32_t schema,
                 const RecordPosition& position);

constexpr std::size_t extra_bytes(std::string_view text) { return sizeof(ExtraHeader) + padded(text.size()); }

/// Writes an extra and its padding; returns the end.
inline std::byte* put_extra(std::byte* at, ExtraTag tag, std::string_view text, std::uint8_t form = 0,
                            std::uint16_t slot = 0) {
  const ExtraHeader header{tag, form, slot, static_cast<std::uint32_t>(text.size())};
  std::memcpy(at, &header, sizeof header);
  at += sizeof header;
  const std::size_t room = padded(text.size());
  if (room != 0) {
    std::memset(at + room - 8, 0, 8);
    std::memcpy(at, text.data(), text.size());
  }
  return at + room;
}

}  // namespace rubriscope
