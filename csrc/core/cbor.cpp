#include "rubriscope/core/cbor.h"

#include <bit>
#include <cmath>
#include <limits>
#include <optional>

#include "rubriscope/core/big_endian.h"
#include "rubriscope/core/errors.h"

namespace rubriscope {
namespace {

constexpr int kMaxDepth = 16;

double half_to_double(std::uint16_t half) {
  const int exponent = half >> 10 & 31;
  const int mantissa = half & 1023;
  double value;
  if (exponent == 0) {
    value = std::ldexp(mantissa, -24);
  } else if (exponent == 31) {
    value =
        mantissa == 0 ? std::numeric_limits<double>::infinity() : std::numeric_limits<double>::quiet_NaN();
  } else {
    value = std::ldexp(mantissa + 1024, exponent - 25);
  }
  return half & 0x8000 ? -value : value;
}

/// The half-precision bits that equal `value`, if there are any. `value` is finite.
std::optional<std::uint16_t> exact_half(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const auto sign = static_cast<std::uint16_t>(bits >> 16 & 0x8000);
  const int exponent = static_cast<int>(bits >> 23 & 255);
  const std::uint32_t mantissa = bits & 0x7FFFFF;
  if (exponent == 0 && mantissa == 0) return sign;
  if (exponent >= 113 && exponent <= 142) {
    if (mantissa & 0x1FFF) return std::nullopt;
    return static_cast<std::uint16_t>(sign | (exponent - 112) << 10 | mantissa >> 13);
  }
  if (exponent >= 103 && exponent <= 112) {  // a subnormal half counts units of 2^-24
    const std::uint32_t full = mantissa | 0x800000;
    const int shift = 126 - exponent;
    if (full & ((1U << shift) - 1)) return std::nullopt;
    return static_cast<std::uint16_t>(sign | full >> shift);
  }
  return std::nullopt;
}

}  // namespace

UuidBytes uuid_bytes(std::string_view text) {
  const auto digit = [](char c) -> int {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
  };
  const auto refuse = [&] {
    throw ValueError("expected a UUID of 36 characters, got \"" + std::string(text) + "\"");
  };
  if (text.size() != 36) refuse();
  UuidBytes bytes{};
  std::size_t at = 0;
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) {
      if (text[at++] != '-') refuse();
    }
    const int high = digit(text[at]);
    const int low = digit(text[at + 1]);
    if (high < 0 || low < 0) refuse();
    bytes[i] = static_cast<std::byte>(high << 4 | low);
    at += 2;
  }
  return bytes;
}

void write_uuid_text(std::string& text, std::span<const std::byte, 16> bytes) {
  constexpr char hex[] = "0123456789abcdef";
  text.resize(36);
  char* at = text.data();
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) *at++ = '-';
    *at++ = hex[std::to_integer<int>(bytes[i]) >> 4];
    *at++ = hex[std::to_integer<int>(bytes[i]) & 15];
  }
}

std::string uuid_text(std::span<const std::byte, 16> bytes) {
  std::string text;
  write_uuid_text(text, bytes);
  return text;
}

namespace cbor {

std::byte* put_head(std::byte* at, Major major, std::uint64_t argument) {
  const auto type = static_cast<std::uint8_t>(static_cast<std::uint8_t>(major) << 5);
  if (argument < 24) {
    *at = static_cast<std::byte>(type | argument);
    return at + 1;
  }
  if (argument <= 0xFF) {
    *at++ = static_cast<std::byte>(type | 24);
    return put_big_endian(at, static_cast<std::uint8_t>(argument));
  }
  if (argument <= 0xFFFF) {
    *at++ = static_cast<std::byte>(type | 25);
    return put_big_endian(at, static_cast<std::uint16_t>(argument));
  }
  if (argument <= 0xFFFFFFFF) {
    *at++ = static_cast<std::byte>(type | 26);
    return put_big_endian(at, static_cast<std::uint32_t>(argument));
  }
  *at++ = static_cast<std::byte>(type | 27);
  return put_big_endian(at, argument);
}

std::byte* put_integer(std::byte* at, std::int64_t value) {
  if (value >= 0) return put_head(at, Major::unsigned_integer, static_cast<std::uint64_t>(value));
  return put_head(at, Major::negative_integer, static_cast<std::uint64_t>(-(value + 1)));
}

std::byte* put_real(std::byte* at, double value) {
  const auto single = static_cast<float>(value);
  if (static_cast<double>(single) != value && value == value) {
    *at++ = std::byte{0xFB};
    return put_big_endian(at, std::bit_cast<std::uint64_t>(value));
  }
  std::optional<std::uint16_t> half;
  if (value != value) {
    half = 0x7E00;
  } else if (std::isinf(single)) {
    half = single > 0 ? 0x7C00 : 0xFC00;
  } else {
    half = exact_half(single);
  }
  if (half) {
    *at++ = std::byte{0xF9};
    return put_big_endian(at, *half);
  }
  *at++ = std::byte{0xFA};
  return put_big_endian(at, std::bit_cast<std::uint32_t>(single));
}

void Reader::fail(const char* what) const {
  throw FormatError(std::string("CBOR record: expected ") + what + ", " + std::to_string(left()) +
                    " bytes before the end");
}

Major Reader::peek() const {
  if (at_ == end_) fail("a data item");
  return static_cast<Major>(std::to_integer<std::uint8_t>(*at_) >> 5);
}

template <class Unsigned>
Unsigned Reader::big_endian() {
  if (left() < sizeof(Unsigned)) fail("the rest of a head");
  Unsigned value;
  std::memcpy(&value, at_, sizeof value);
  at_ += sizeof value;
  if constexpr (std::endian::native == std::endian::big || sizeof value == 1) {
    return value;
  } else if constexpr (sizeof value == 2) {
    return __builtin_bswap16(value);
  } else if constexpr (sizeof value == 4) {
    return __builtin_bswap32(value);
  } else {
    return __builtin_bswap64(value);
  }
}

Reader::Head Reader::head() {
  if (at_ == end_) fail("a data item");
  const auto initial = std::to_integer<std::uint8_t>(*at_++);
  Head head{static_cast<Major>(initial >> 5), static_cast<std::uint8_t>(initial & 31), 0};
  if (head.info < 24) {
    head.argument = head.info;
    return head;
  }
  switch (head.info) {
    case 24:
      head.argument = big_endian<std::uint8_t>();
      break;
    case 25:
      head.argument = big_endian<std::uint16_t>();
      break;
    case 26:
      head.argument = big_endian<std::uint32_t>();
      break;
    case 27:
      head.argument = big_endian<std::uint64_t>();
      break;
    default:
      fail("a definite length");
  }
  return head;
}

std::uint64_t Reader::count(Major major, const char* what) {
  if (at_ == end_ || peek() != major) fail(what);
  return head().argument;
}

std::uint64_t Reader::unsigned_integer(const char* what) { return count(Major::unsigned_integer, what); }

std::int64_t Reader::integer(const char* what) {
  const Head read = head();
  if (read.argument > 0x7FFFFFFFFFFFFFFFULL) fail(what);
  if (read.major == Major::unsigned_integer) return static_cast<std::int64_t>(read.argument);
  if (read.major != Major::negative_integer) fail(what);
  return -1 - static_cast<std::int64_t>(read.argument);
}

std::string_view Reader::chunk(Major major, const char* what) {
  const std::uint64_t length = count(major, what);
  if (length > left()) fail(what);
  const std::string_view found(reinterpret_cast<const char*>(at_), length);
  at_ += length;
  return found;
}

double Reader::real(const char* what) {
  const Head read = head();
  if (read.major != Major::simple) fail(what);
  switch (read.info) {
    case 25:
      return half_to_double(static_cast<std::uint16_t>(read.argument));
    case 26:
      return std::bit_cast<float>(static_cast<std::uint32_t>(read.argument));
    case 27:
      return std::bit_cast<double>(read.argument);
    default:
      fail(what);
  }
}

double Reader::real_or_null(double none, const char* what) {
  if (at_ != end_ && *at_ == kNull) {
    ++at_;
    return none;
  }
  return real(what);
}

void Reader::skip_numbers(Major major, std::uint64_t count, const char* what) {
  // What follows the initial byte, by its low five bits.
  static constexpr std::array<std::uint8_t, 32> following = [] {
    std::array<std::uint8_t, 32> table{};
    table[24] = 1;
    table[25] = 2;
    table[26] = 4;
    table[27] = 8;
    return table;
  }();
  const std::byte* at = at_;
  for (std::uint64_t i = 0; i < count; ++i) {
    if (at >= end_) fail(what);
    const auto initial = std::to_integer<std::uint8_t>(*at);
    if (initial >> 5 != static_cast<std::uint8_t>(major) || (initial & 31) > 27) fail(what);
    at += 1 + following[initial & 31];
  }
  if (at > end_) fail(what);
  at_ = at;
}

void Reader::skip(int depth) {
  if (depth > kMaxDepth) fail("less nesting");
  const Head read = head();
  switch (read.major) {
    case Major::byte_string:
    case Major::text_string:
      if (read.argument > left()) fail("the rest of a string");
      at_ += read.argument;
      return;
    case Major::array:
      for (std::uint64_t i = 0; i < read.argument; ++i) skip(depth + 1);
      return;
    case Major::map:
      for (std::uint64_t i = 0; i < read.argument; ++i) {
        skip(depth + 1);
        skip(depth + 1);
      }
      return;
    case Major::tag:
      skip(depth + 1);
      return;
    default:
      return;
  }
}

}  // namespace cbor

}  // namespace rubriscope
