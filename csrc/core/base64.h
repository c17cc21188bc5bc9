// Base64 (RFC 4648 §4), with padding.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace rubriscope {

inline std::span<const std::uint8_t> as_octets(std::string_view bytes) {
  return {reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size()};
}

std::string to_base64(std::span<const std::uint8_t> bytes);
/// nullopt for anything but canonical base64 with its padding.
std::optional<std::string> from_base64(std::string_view text);

}  // namespace rubriscope
