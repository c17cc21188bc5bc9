// Keys in memory: 32 bytes that are overwritten when they are no longer needed.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace rubriscope::vault {

class Secret {
 public:
  static constexpr std::size_t kBytes = 32;

  /// A new random one. Throws Error when OpenSSL has no randomness.
  static Secret random();
  /// 32 raw bytes, or 64 hex digits with or without a line break behind them. Throws ValueError, which does
  /// not show what was given.
  static Secret parse(std::string_view text);
  explicit Secret(std::span<const std::uint8_t, kBytes> bytes);
  ~Secret();
  Secret(const Secret& other) = default;
  Secret& operator=(const Secret& other) = default;

  std::span<const std::uint8_t, kBytes> bytes() const { return bytes_; }

 private:
  Secret() = default;

  std::array<std::uint8_t, kBytes> bytes_{};
};

/// HMAC-SHA256 (RFC 2104).
std::array<std::uint8_t, 32> hmac(const Secret& key, std::string_view message);

/// Lower-case hex digits.
std::string to_hex(std::span<const std::uint8_t> bytes);

}  // namespace rubriscope::vault
