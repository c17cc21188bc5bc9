// Ids of spans and events: {layer}_{unix seconds}_{16 hex digits}, "alt_1705180800_9f86d081884c7d65". The
// digits are the 64-bit W3C span id as well.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace rubriscope {

/// Hex digits of the random part. 64 bits: among a million ids of one second two are alike once in 4·10⁷ such
/// seconds.
inline constexpr std::size_t kRandomDigits = 16;

/// The longest code of a layer, and so of an id.
inline constexpr std::size_t kMostLayerCode = 16;
inline constexpr std::size_t kMostTraceId = kMostLayerCode + 1 + 20 + 1 + kRandomDigits;

/// 64 random bits, never 0 (W3C forbids it). Of this thread's own generator (wyrand), which takes its seed
/// from the kernel once, and anew in a forked child: no system call per id.
std::uint64_t random_span_id();

/// Writes an id; returns its end. At most kMostTraceId characters.
char* write_trace_id(char* at, std::string_view layer_code, std::int64_t unix_seconds, std::uint64_t random);

/// Writes `digits` lower-case hex digits; returns the end.
char* write_hex(char* at, std::uint64_t value, std::size_t digits);

/// Reads `text` as lower-case hex; false where it is none, or longer than 16 digits.
bool read_hex(std::string_view text, std::uint64_t& value);

/// The random part of an id, 0 where it is not 16 hex digits (the origin's ids have 4 characters).
std::uint64_t random_part(std::string_view id);

/// A W3C trace id.
struct TraceNumber {
  std::uint64_t high{};
  std::uint64_t low{};
  bool operator==(const TraceNumber&) const = default;

  /// 32 lower-case hex digits.
  std::string hex() const;
};

/// The trace id of the tree whose root has this code, time and random part.
inline TraceNumber trace_number(std::string_view layer_code, std::int64_t unix_seconds,
                                std::uint64_t random) {
  std::uint32_t code = 0;
  for (std::size_t i = 0; i < 4; ++i) {
    code = code << 8 | (i < layer_code.size() ? static_cast<unsigned char>(layer_code[i]) : 0U);
  }
  return {static_cast<std::uint64_t>(unix_seconds) << 32 | code, random};
}

/// The trace id of the tree whose root has this id: the seconds, the code's first four characters, the random
/// part. So a tree's trace id follows from its root. Of an id that is not of this form a hash of it.
TraceNumber trace_number_of_root(std::string_view id);

/// The id of the root of a tree that has this trace id, where a known layer's code stands in it; else its 32
/// hex digits: another system began it, or a layer whose code is longer than four characters.
std::string root_of_trace(TraceNumber trace);

}  // namespace rubriscope
