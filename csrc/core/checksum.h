// The parts of checksum() that tests compare: CRC-32C by table and by instruction must agree bit for bit.
#pragma once

#include <cstddef>
#include <cstdint>

namespace rubriscope::detail {

/// checksum() by lookup tables; runs everywhere.
std::uint32_t checksum_portable(const void* data, std::size_t bytes);

/// checksum() by the processor's CRC instructions. Call only when has_crc_instructions().
std::uint32_t checksum_accelerated(const void* data, std::size_t bytes);

/// Whether this processor has CRC-32C instructions.
bool has_crc_instructions();

/// Plain CRC-32C (initial value and final inversion included) by table: the standard's test vectors apply.
std::uint32_t crc32c(const void* data, std::size_t bytes);

}  // namespace rubriscope::detail
