// What an event says of an input or output: its first characters.
#pragma once

#include <cstddef>
#include <string_view>

namespace rubriscope {

/// Characters (code points) of a summary at most.
inline constexpr std::size_t kMostSummary = 100;

/// The first `most` characters of UTF-8 text, cut between two of them.
inline std::string_view cut_summary(std::string_view text, std::size_t most = kMostSummary) {
  if (text.size() <= most) return text;
  std::size_t characters = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const bool starts = (static_cast<unsigned char>(text[i]) & 0xC0U) != 0x80U;
    if (starts && characters++ == most) return text.substr(0, i);
  }
  return text;
}

}  // namespace rubriscope
