#include "rubriscope/core/json.h"

#include <array>
#include <bit>
#include <charconv>
#include <cmath>
#include <cstring>

#include "rubriscope/core/captured.h"
#include "rubriscope/core/errors.h"
#include "rubriscope/core/record.h"

namespace rubriscope {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD
constexpr std::string_view kCutMark = "\xE2\x80\xA6";      // U+2026, an ellipsis
constexpr int kMaxDepth = 200;

/// The length of the well-formed UTF-8 character at `at`, or 0; then *bad is the number of bytes that one
/// U+FFFD stands for (Unicode's "maximal subpart", as Python's errors="replace" does).
std::size_t utf8_character(const unsigned char* at, std::size_t left, std::size_t* bad) {
  const unsigned char lead = at[0];
  *bad = 1;
  if (lead < 0x80) return 1;
  unsigned low = 0x80;
  unsigned high = 0xBF;
  std::size_t length = 0;
  if (lead >= 0xC2 && lead <= 0xDF) {
    length = 2;
  } else if (lead >= 0xE0 && lead <= 0xEF) {
    length = 3;
    if (lead == 0xE0) low = 0xA0;
    if (lead == 0xED) high = 0x9F;
  } else if (lead >= 0xF0 && lead <= 0xF4) {
    length = 4;
    if (lead == 0xF0) low = 0x90;
    if (lead == 0xF4) high = 0x8F;
  } else {
    return 0;
  }
  for (std::size_t i = 1; i < length; ++i) {
    if (i >= left || at[i] < low || at[i] > high) {
      *bad = i;
      return 0;
    }
    low = 0x80;
    high = 0xBF;
  }
  return length;
}

/// The length of the prefix of `text` from `from` that is plain ASCII.
std::size_t ascii_run(std::string_view text, std::size_t from) {
  std::size_t at = from;
  while (at + 8 <= text.size()) {
    std::uint64_t word;
    std::memcpy(&word, text.data() + at, 8);
    if (word & 0x8080808080808080ULL) break;
    at += 8;
  }
  while (at < text.size() && static_cast<unsigned char>(text[at]) < 0x80) ++at;
  return at - from;
}

/// What a character becomes inside a JSON string: 0 as it is, 'u' as \u00XX, else after a backslash.
constexpr std::array<char, 256> kEscapes = [] {
  std::array<char, 256> table{};
  for (int c = 0; c < 0x20; ++c) table[c] = 'u';
  table['"'] = '"';
  table['\\'] = '\\';
  table['\b'] = 'b';
  table['\f'] = 'f';
  table['\n'] = 'n';
  table['\r'] = 'r';
  table['\t'] = 't';
  table[0x7F] = 'u';  // DEL is legal, but terminals and diffs suffer from it
  return table;
}();

constexpr char kDigits[] =
    "00010203040506070809101112131415161718192021222324252627282930313233343536373839"
    "40414243444546474849505152535455565758596061626364656667686970717273747576777879"
    "8081828384858687888990919293949596979899";

bool is_digit(char c) { return c >= '0' && c <= '9'; }

}  // namespace

char* write_json_number(char* at, std::uint64_t value) {
  if (value < 10) {
    *at = static_cast<char>('0' + value);
    return at + 1;
  }
  char buffer[20];
  char* from = buffer + sizeof buffer;
  while (value >= 100) {
    from -= 2;
    std::memcpy(from, kDigits + 2 * (value % 100), 2);
    value /= 100;
  }
  if (value >= 10) {
    from -= 2;
    std::memcpy(from, kDigits + 2 * value, 2);
  } else {
    *--from = static_cast<char>('0' + value);
  }
  const std::size_t length = static_cast<std::size_t>(buffer + sizeof buffer - from);
  std::memcpy(at, from, length);
  return at + length;
}

char* write_json_number(char* at, std::int64_t value) {
  if (value >= 0) return write_json_number(at, static_cast<std::uint64_t>(value));
  *at++ = '-';
  return write_json_number(at, std::uint64_t{0} - static_cast<std::uint64_t>(value));
}

namespace {

/// 10^n as the upper 128 bits of a binary fraction: between 2^127 and 2^128. Exact, as 5^54 < 2^128.
struct Power {
  std::uint64_t high;
  std::uint64_t low;
};

constexpr int kMaxPower = 54;

constexpr std::array<Power, kMaxPower + 1> kPowers = [] {
  std::array<Power, kMaxPower + 1> table{};
  unsigned __int128 five = 1;  // 5^n and 10^n differ by a power of two, which normalising takes away
  for (int n = 0; n <= kMaxPower; ++n) {
    unsigned __int128 power = five;
    while (!(power >> 127)) power <<= 1;
    table[n] = {static_cast<std::uint64_t>(power >> 64), static_cast<std::uint64_t>(power)};
    five *= 5;
  }
  return table;
}();

/// The upper part of g * c, its lowest bit set when anything below was not zero.
std::uint64_t round_to_odd(const Power& g, std::uint64_t c) {
  const auto low = static_cast<unsigned __int128>(g.low) * c;
  const auto high = static_cast<unsigned __int128>(g.high) * c + static_cast<std::uint64_t>(low >> 64);
  return static_cast<std::uint64_t>(high >> 64) | (static_cast<std::uint64_t>(high) > 1);
}

struct Decimal {
  std::uint64_t digits;
  int exponent;  ///< of ten
};

/// The shortest decimal that rounds to a normal double between 2^-100 and 2^52 that is not a whole number,
/// and of those the closest. Raffaello Giulietti's Schubfach; in this range every power of ten is exact.
Decimal shortest_decimal(std::uint64_t mantissa, int biased_exponent) {
  const std::uint64_t c = mantissa | std::uint64_t{1} << 52;
  const int q = biased_exponent - 1075;
  const bool closer_below = mantissa == 0;
  const std::uint64_t odd = c & 1;
  const int k = (q * 1262611 - (closer_below ? 524031 : 0)) >> 22;  // floor(log10(the spacing of doubles))
  const int shift = q + (-k * 1741647 >> 19) + 1;                   // q + floor(log2(10^-k)) + 1
  const Power& power = kPowers[static_cast<std::size_t>(-k)];
  // Four times the value and the bounds of the interval that rounds to it, in units of 10^k.
  const std::uint64_t lower = round_to_odd(power, (4 * c - 2 + closer_below) << shift) + odd;
  const std::uint64_t value = round_to_odd(power, 4 * c << shift);
  const std::uint64_t upper = round_to_odd(power, (4 * c + 2) << shift) - odd;
  const std::uint64_t floor = value / 4;
  const std::uint64_t tens = floor / 10;
  const bool tens_below_in = lower <= 40 * tens;
  const bool tens_above_in = 40 * tens + 40 <= upper;
  const bool below_in = lower <= 4 * floor;
  const bool above_in = 4 * floor + 4 <= upper;
  const std::uint64_t middle = 4 * floor + 2;
  const bool closer_above = value > middle || (value == middle && (floor & 1));
  // Which of these holds is a coin toss for random scores: select by arithmetic, a branch would be
  // mispredicted.
  const std::uint64_t shorter = -static_cast<std::uint64_t>(tens_below_in != tens_above_in);
  const std::uint64_t one_sided = -static_cast<std::uint64_t>(below_in != above_in);
  const std::uint64_t up = (one_sided & above_in) | (~one_sided & closer_above);
  return {(shorter & (tens + tens_above_in)) | (~shorter & (floor + up)), k + static_cast<int>(shorter & 1)};
}

/// Eight decimal digits, one a byte, the first in the lowest byte.
inline std::uint64_t eight_digits(std::uint32_t value) {
  // Halves, quarters, eighths side by side: multiplying and shifting divides each by 100, then by 10.
  const std::uint64_t halves = value / 10000 | static_cast<std::uint64_t>(value % 10000) << 32;
  const std::uint64_t hundreds = (halves * 10486) >> 20 & 0x0000007F0000007FULL;
  const std::uint64_t quarters = ((halves - 100 * hundreds) << 16) + hundreds;
  const std::uint64_t tens = (quarters * 103) >> 10 & 0x000F000F000F000FULL;
  return ((quarters - 10 * tens) << 8) + tens;
}

char* put_8_digits(char* at, std::uint64_t digits) {
  digits += 0x3030303030303030ULL;
  if constexpr (std::endian::native == std::endian::big) digits = __builtin_bswap64(digits);
  std::memcpy(at, &digits, 8);
  return at + 8;
}

/// Positional notation of at most 17 digits that are neither a whole number nor below 1e-4.
char* write_decimal(char* at, Decimal decimal) {
  while (decimal.digits < 1'000'000'000'000'000) {
    decimal.digits *= 10;
    --decimal.exponent;
  }
  const std::uint64_t upper = decimal.digits / 100'000'000;
  const std::uint64_t middle = eight_digits(static_cast<std::uint32_t>(upper % 100'000'000));
  const std::uint64_t low = eight_digits(static_cast<std::uint32_t>(decimal.digits % 100'000'000));
  const auto top = static_cast<char>(upper / 100'000'000);
  const int before_point = 16 + (top != 0) + decimal.exponent;

  char* digits = at + 1;  // the point goes between them later
  if (before_point <= 0) {
    std::memcpy(at, "0.000000", 8);
    digits = at + 2 - before_point;
  }
  char* end = digits;
  *end = static_cast<char>('0' + top);
  end += top != 0;
  end = put_8_digits(put_8_digits(end, middle), low);
  end -= low != 0 ? std::countl_zero(low) / 8 : 8 + std::countl_zero(middle) / 8;
  for (int i = 0; i < before_point; ++i) at[i] = at[i + 1];
  if (before_point > 0) at[before_point] = '.';
  return end;
}

}  // namespace

char* write_json_number(char* at, double value) {
  if (!std::isfinite(value)) {
    std::memcpy(at, "null", 4);
    return at + 4;
  }
  const double magnitude = std::fabs(value);
  if (magnitude < 1e9) {
    // Scores are often whole numbers or have a few decimals. With at most 15 significant digits a decimal and
    // its nearest double determine each other, so scaling, rounding and scaling back decides it exactly.
    const double product = magnitude * 1e6;
    const auto scaled = static_cast<std::uint64_t>(product + 0.5);
    // The product is off by less than an eighth, so most values are told apart without the division.
    if (std::fabs(product - static_cast<double>(scaled)) < 0.125 &&
        static_cast<double>(scaled) / 1e6 == magnitude) {
      if (std::signbit(value)) *at++ = '-';
      at = write_json_number(at, scaled / 1000000);
      *at++ = '.';
      const auto fraction = static_cast<std::uint32_t>(scaled % 1000000);
      std::memcpy(at, kDigits + 2 * (fraction / 10000), 2);
      std::memcpy(at + 2, kDigits + 2 * (fraction / 100 % 100), 2);
      std::memcpy(at + 4, kDigits + 2 * (fraction % 100), 2);
      char* end = at + 6;
      while (end > at + 1 && end[-1] == '0') --end;
      return end;
    }
    if (magnitude >= 1e-4 && magnitude != std::floor(magnitude)) {
      if (std::signbit(value)) *at++ = '-';
      const auto bits = std::bit_cast<std::uint64_t>(magnitude);
      return write_decimal(
          at, shortest_decimal(bits & ((std::uint64_t{1} << 52) - 1), static_cast<int>(bits >> 52)));
    }
  }
  char* const end = std::to_chars(at, at + kMaxJsonNumber, value).ptr;
  for (const char* c = at; c != end; ++c) {
    if (*c == '.' || *c == 'e') return end;
  }
  std::memcpy(end, ".0", 2);
  return end + 2;
}

void append_json_number(std::string& out, double value) {
  char buffer[kMaxJsonNumber];
  out.append(buffer, write_json_number(buffer, value));
}

void append_json_number(std::string& out, std::int64_t value) {
  char buffer[kMaxJsonNumber];
  out.append(buffer, write_json_number(buffer, value));
}

void append_json_number(std::string& out, std::uint64_t value) {
  char buffer[kMaxJsonNumber];
  out.append(buffer, write_json_number(buffer, value));
}

bool is_valid_utf8(std::string_view text) {
  std::size_t at = 0;
  for (;;) {
    at += ascii_run(text, at);
    if (at >= text.size()) return true;
    std::size_t bad;
    const std::size_t length =
        utf8_character(reinterpret_cast<const unsigned char*>(text.data()) + at, text.size() - at, &bad);
    if (length == 0) return false;
    at += length;
  }
}

void append_valid_utf8(std::string& out, std::string_view text) {
  std::size_t at = 0;
  std::size_t copied = 0;
  while (at < text.size()) {
    at += ascii_run(text, at);
    if (at >= text.size()) break;
    std::size_t bad;
    const std::size_t length =
        utf8_character(reinterpret_cast<const unsigned char*>(text.data()) + at, text.size() - at, &bad);
    if (length != 0) {
      at += length;
      continue;
    }
    out.append(text, copied, at - copied);
    out += kReplacement;
    at += bad;
    copied = at;
  }
  out.append(text, copied, std::string_view::npos);
}

void append_json_string(std::string& out, std::string_view text) {
  out.reserve(out.size() + text.size() + 2);
  out += '"';
  const auto* const bytes = reinterpret_cast<const unsigned char*>(text.data());
  std::size_t at = 0;
  std::size_t copied = 0;
  while (at < text.size()) {
    const unsigned char c = bytes[at];
    if (c < 0x80) {
      const char escape = kEscapes[c];
      if (escape == 0) {
        ++at;
        continue;
      }
      out.append(text, copied, at - copied);
      out += '\\';
      out += escape;
      if (escape == 'u') {
        constexpr char hex[] = "0123456789abcdef";
        out += "00";
        out += hex[c >> 4];
        out += hex[c & 15];
      }
      copied = ++at;
      continue;
    }
    std::size_t bad;
    const std::size_t length = utf8_character(bytes + at, text.size() - at, &bad);
    if (length != 0) {
      at += length;
      continue;
    }
    out.append(text, copied, at - copied);
    out += kReplacement;
    at += bad;
    copied = at;
  }
  out.append(text, copied, std::string_view::npos);
  out += '"';
}

bool is_valid_json(std::string_view text) {
  if (!is_valid_utf8(text)) return false;
  try {
    JsonReader reader(text);
    reader.skip_value();
    reader.expect_end();
    return true;
  } catch (const FormatError&) {
    return false;
  }
}

void append_json_value(std::string& out, std::string_view json_text) {
  if (!is_valid_json(json_text)) {
    append_json_string(out, json_text);
    return;
  }
  // In valid JSON a raw line break is white space between tokens; a reader of lines must not see it.
  const std::size_t from = out.size();
  out += json_text;
  for (std::size_t i = from; i < out.size(); ++i) {
    if (out[i] == '\n' || out[i] == '\r') out[i] = ' ';
  }
}

void append_json_capture(std::string& out, std::string_view text, std::uint8_t form) {
  if (form == static_cast<std::uint8_t>(CaptureForm::integer)) {
    // Any number of digits: JSON has no limit.
    const std::string_view digits = text.substr(!text.empty() && text[0] == '-' ? 1 : 0);
    bool plain = !digits.empty() && (digits.size() == 1 || digits[0] != '0');
    for (char c : digits) plain = plain && is_digit(c);
    if (plain) {
      out += text;
      return;
    }
  }
  if (const auto real = captured_real(text, form)) {
    append_json_number(out, *real);
    return;
  }
  append_json_string(out, text);
  if (form & kCaptureCut) out.insert(out.size() - 1, kCutMark);
}

// ---- JsonReader ----

void JsonReader::fail(const char* expected) const {
  std::string message = "JSON: expected ";
  message += expected;
  message += " at byte " + std::to_string(at_);
  if (at_ < text_.size()) {
    message += ", found ";
    append_json_string(message, text_.substr(at_, 12));
  } else {
    message += ", found the end";
  }
  throw FormatError(message);
}

void JsonReader::skip_space() {
  while (at_ < text_.size() &&
         (text_[at_] == ' ' || text_[at_] == '\t' || text_[at_] == '\n' || text_[at_] == '\r')) {
    ++at_;
  }
}

bool JsonReader::accept(char c) {
  skip_space();
  if (at_ >= text_.size() || text_[at_] != c) return false;
  ++at_;
  return true;
}

void JsonReader::expect(char c) {
  if (accept(c)) return;
  const char wanted[] = {'\'', c, '\'', 0};
  fail(wanted);
}

std::uint32_t JsonReader::hex4() {
  std::uint32_t value = 0;
  if (at_ + 4 > text_.size()) fail("four hexadecimal digits");
  const auto [end, error] = std::from_chars(text_.data() + at_, text_.data() + at_ + 4, value, 16);
  if (error != std::errc{} || end != text_.data() + at_ + 4) fail("four hexadecimal digits");
  at_ += 4;
  return value;
}

void JsonReader::parse_string(std::string* out) {
  expect('"');
  for (;;) {
    const std::size_t from = at_;
    while (at_ < text_.size() && text_[at_] != '"' && text_[at_] != '\\' &&
           static_cast<unsigned char>(text_[at_]) >= 0x20) {
      ++at_;
    }
    if (out) out->append(text_, from, at_ - from);
    if (at_ >= text_.size() || static_cast<unsigned char>(text_[at_]) < 0x20) fail("the end of a string");
    if (text_[at_++] == '"') return;
    if (at_ >= text_.size()) fail("an escape");
    const char escape = text_[at_++];
    char plain = 0;
    switch (escape) {
      case '"':
      case '\\':
      case '/':
        plain = escape;
        break;
      case 'b':
        plain = '\b';
        break;
      case 'f':
        plain = '\f';
        break;
      case 'n':
        plain = '\n';
        break;
      case 'r':
        plain = '\r';
        break;
      case 't':
        plain = '\t';
        break;
      case 'u':
        break;
      default:
        --at_;
        fail("an escape");
    }
    if (escape != 'u') {
      if (out) *out += plain;
      continue;
    }
    std::uint32_t code = hex4();
    if (code >= 0xD800 && code <= 0xDBFF && text_.substr(at_, 2) == "\\u") {
      const std::size_t back = at_;
      at_ += 2;
      const std::uint32_t low = hex4();
      if (low >= 0xDC00 && low <= 0xDFFF) {
        code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
      } else {
        at_ = back;
      }
    }
    if (!out) continue;
    if (code >= 0xD800 && code <= 0xDFFF) {
      *out += kReplacement;  // an unpaired surrogate is legal JSON and no character
    } else if (code < 0x80) {
      *out += static_cast<char>(code);
    } else if (code < 0x800) {
      *out += static_cast<char>(0xC0 | code >> 6);
      *out += static_cast<char>(0x80 | (code & 63));
    } else if (code < 0x10000) {
      *out += static_cast<char>(0xE0 | code >> 12);
      *out += static_cast<char>(0x80 | (code >> 6 & 63));
      *out += static_cast<char>(0x80 | (code & 63));
    } else {
      *out += static_cast<char>(0xF0 | code >> 18);
      *out += static_cast<char>(0x80 | (code >> 12 & 63));
      *out += static_cast<char>(0x80 | (code >> 6 & 63));
      *out += static_cast<char>(0x80 | (code & 63));
    }
  }
}

std::string JsonReader::string() {
  std::string text;
  parse_string(&text);
  return text;
}

void JsonReader::skip_number() {
  const auto digits = [&] {
    if (at_ >= text_.size() || !is_digit(text_[at_])) fail("a digit");
    while (at_ < text_.size() && is_digit(text_[at_])) ++at_;
  };
  if (text_[at_] == '-') ++at_;
  if (at_ < text_.size() && text_[at_] == '0') {
    ++at_;
  } else {
    digits();
  }
  if (at_ < text_.size() && text_[at_] == '.') {
    ++at_;
    digits();
  }
  if (at_ < text_.size() && (text_[at_] == 'e' || text_[at_] == 'E')) {
    ++at_;
    if (at_ < text_.size() && (text_[at_] == '+' || text_[at_] == '-')) ++at_;
    digits();
  }
}

void JsonReader::skip_literal(std::string_view literal) {
  if (text_.substr(at_, literal.size()) != literal) fail("a value");
  at_ += literal.size();
}

void JsonReader::skip_value(int depth) {
  if (depth > kMaxDepth) fail("less nesting");
  skip_space();
  if (at_ >= text_.size()) fail("a value");
  switch (text_[at_]) {
    case '{':
      ++at_;
      if (accept('}')) return;
      do {
        parse_string(nullptr);
        expect(':');
        skip_value(depth + 1);
      } while (accept(','));
      expect('}');
      return;
    case '[':
      ++at_;
      if (accept(']')) return;
      do {
        skip_value(depth + 1);
      } while (accept(','));
      expect(']');
      return;
    case '"':
      parse_string(nullptr);
      return;
    case 't':
      skip_literal("true");
      return;
    case 'f':
      skip_literal("false");
      return;
    case 'n':
      skip_literal("null");
      return;
    default:
      if (text_[at_] != '-' && !is_digit(text_[at_])) fail("a value");
      skip_number();
  }
}

void JsonReader::expect_end() {
  skip_space();
  if (at_ != text_.size()) fail("the end");
}

}  // namespace rubriscope
