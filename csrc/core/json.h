// JSON as the sinks write it: strings that are always valid UTF-8, shortest round-trip numbers, `null` for a
// number that is not finite. And a strict pull reader, enough for definitions and for checking a user's text.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace rubriscope {

/// Enough room for what write_json_number() writes.
inline constexpr std::size_t kMaxJsonNumber = 32;

/// Writes the shortest decimal that reads back as `value`, always with a point or an exponent ("1.0", "0.25",
/// "1e+22") so that readers keep it a float; "null" when it is not finite. Returns the end; bytes up to
/// kMaxJsonNumber may be overwritten.
char* write_json_number(char* at, double value);

/// Writes decimal digits. At most 20 characters. Returns the end.
char* write_json_number(char* at, std::int64_t value);
char* write_json_number(char* at, std::uint64_t value);

void append_json_number(std::string& out, double value);
void append_json_number(std::string& out, std::int64_t value);
void append_json_number(std::string& out, std::uint64_t value);

/// Appends `text` quoted and escaped; each invalid UTF-8 sequence becomes U+FFFD.
void append_json_string(std::string& out, std::string_view text);

/// Whether `text` is well-formed UTF-8 (RFC 3629: no surrogates, no overlong forms).
bool is_valid_utf8(std::string_view text);

/// Appends `text` with each maximal invalid UTF-8 subsequence replaced by U+FFFD.
void append_valid_utf8(std::string& out, std::string_view text);

/// Whether `text` is one JSON value (RFC 8259) and nothing else. Nesting deeper than 200 is refused.
bool is_valid_json(std::string_view text);

/// Appends a user's JSON text on one line as it is when it is valid, else as a JSON string.
void append_json_value(std::string& out, std::string_view json_text);

/// Appends a captured value: a number for CaptureForm integer and real, else a string; a cut text ends in
/// "…".
void append_json_capture(std::string& out, std::string_view text, std::uint8_t form);

/// Builds one JSON document; commas are placed by the writer.
class JsonWriter {
 public:
  explicit JsonWriter(std::string& out) : out_(out) {}

  JsonWriter& begin_object() { return open('{'); }
  JsonWriter& end_object() { return close('}'); }
  JsonWriter& begin_array() { return open('['); }
  JsonWriter& end_array() { return close(']'); }

  JsonWriter& key(std::string_view name) {
    separate();
    append_json_string(out_, name);
    out_ += ':';
    need_comma_ = false;
    return *this;
  }
  JsonWriter& string(std::string_view text) {
    separate();
    append_json_string(out_, text);
    return *this;
  }
  template <class Number>
  JsonWriter& number(Number value) {
    separate();
    append_json_number(out_, value);
    return *this;
  }
  /// A value that is JSON already (see append_json_value).
  JsonWriter& json(std::string_view text) {
    separate();
    append_json_value(out_, text);
    return *this;
  }

 private:
  void separate() {
    if (need_comma_) out_ += ',';
    need_comma_ = true;
  }
  JsonWriter& open(char bracket) {
    separate();
    out_ += bracket;
    need_comma_ = false;
    return *this;
  }
  JsonWriter& close(char bracket) {
    out_ += bracket;
    need_comma_ = true;
    return *this;
  }

  std::string& out_;
  bool need_comma_{false};
};

/// A strict pull reader over JSON text. Every method throws FormatError with the offset when the text is not
/// what was asked for.
class JsonReader {
 public:
  explicit JsonReader(std::string_view text) : text_(text) {}

  /// Consumes `c` if it is next (after white space).
  bool accept(char c);
  /// Consumes `c`.
  void expect(char c);
  /// A string, unescaped to UTF-8.
  std::string string();
  /// Skips one value of any type.
  void skip_value() { skip_value(0); }
  /// Where the next value is read from, in characters.
  std::size_t offset() const { return at_; }
  /// Only white space may be left.
  void expect_end();

 private:
  [[noreturn]] void fail(const char* expected) const;
  void skip_space();
  void skip_value(int depth);
  void skip_number();
  void skip_literal(std::string_view literal);
  std::uint32_t hex4();
  void parse_string(std::string* out);

  std::string_view text_;
  std::size_t at_{0};
};

}  // namespace rubriscope
