// Integers in network order.
#pragma once

#include <bit>
#include <cstring>
#include <type_traits>

namespace rubriscope {

/// Writes an integer's bytes, the highest first. Returns the end.
template <class Byte, class Integer>
Byte* put_big_endian(Byte* at, Integer value) {
  static_assert(sizeof(Byte) == 1);
  auto bits = static_cast<std::make_unsigned_t<Integer>>(value);
  if constexpr (std::endian::native == std::endian::little) {
    if constexpr (sizeof(Integer) == 8) bits = __builtin_bswap64(bits);
    if constexpr (sizeof(Integer) == 4) bits = __builtin_bswap32(bits);
    if constexpr (sizeof(Integer) == 2) bits = __builtin_bswap16(bits);
  }
  std::memcpy(at, &bits, sizeof bits);
  return at + sizeof bits;
}

}  // namespace rubriscope
