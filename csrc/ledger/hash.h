// SHA-256 as RFC 6962 uses it: leaves and nodes have prefixes of their own, so neither can pose as the other.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace rubriscope::ledger {

using Hash = std::array<std::uint8_t, 32>;
using Bytes = std::span<const std::uint8_t>;

inline Bytes bytes_of(std::string_view text) {
  return {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()};
}

inline Bytes bytes_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size()};
}

/// The byte before an entry, and before a node's two halves, when they are hashed.
inline constexpr std::uint8_t kLeafPrefix = 0x00;
inline constexpr std::uint8_t kNodePrefix = 0x01;

/// Computes hashes one after the other with one OpenSSL context. Not for several threads at once.
class Hasher {
 public:
  /// Throws Error when OpenSSL has no SHA-256.
  Hasher();
  ~Hasher();
  Hasher(Hasher&&) noexcept;
  Hasher& operator=(Hasher&&) noexcept;

  /// SHA-256(0x00 ‖ entry).
  Hash leaf(Bytes entry);
  /// SHA-256(0x01 ‖ left ‖ right).
  Hash node(const Hash& left, const Hash& right);
  /// SHA-256(data).
  Hash plain(Bytes data);

 private:
  struct Context;
  Hash digest(Bytes data);

  std::unique_ptr<Context> context_;
};

/// SHA-256 of nothing: the root of an empty tree.
const Hash& empty_root();

std::string to_hex(Bytes bytes);

}  // namespace rubriscope::ledger
