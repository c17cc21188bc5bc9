#include "rubriscope/core/json.h"

#include <gtest/gtest.h>

#include <charconv>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>

#include "rubriscope/core/captured.h"
#include "rubriscope/core/errors.h"
#include "rubriscope/core/record.h"

namespace rubriscope {
namespace {

std::string number(double value) {
  std::string text;
  append_json_number(text, value);
  return text;
}

std::string quoted(std::string_view text) {
  std::string out;
  append_json_string(out, text);
  return out;
}

TEST(JsonNumber, KeepsAPointAndIsShortest) {
  EXPECT_EQ(number(0.0), "0.0");
  EXPECT_EQ(number(-0.0), "-0.0");
  EXPECT_EQ(number(1.0), "1.0");
  EXPECT_EQ(number(-17.0), "-17.0");
  EXPECT_EQ(number(0.25), "0.25");
  EXPECT_EQ(number(0.1), "0.1");
  EXPECT_EQ(number(123456789.125), "123456789.125");
  EXPECT_EQ(number(0.1 + 0.2), "0.30000000000000004");
  EXPECT_EQ(number(1e22), "1e+22");
  EXPECT_EQ(number(5e-324), "5e-324");
  EXPECT_EQ(number(9007199254740993.0), "9007199254740992.0");
}

TEST(JsonNumber, NotFiniteIsNull) {
  EXPECT_EQ(number(std::numeric_limits<double>::infinity()), "null");
  EXPECT_EQ(number(-std::numeric_limits<double>::infinity()), "null");
  EXPECT_EQ(number(std::numeric_limits<double>::quiet_NaN()), "null");
}

// The library's own shortest conversion is the oracle: the same value, and never more digits.
TEST(JsonNumber, AgreesWithToCharsOnRandomDoubles) {
  std::mt19937_64 random(11);
  std::uniform_real_distribution<double> unit(0, 1);
  for (int i = 0; i < 100'000; ++i) {
    double value = unit(random);
    switch (i % 8) {
      case 1:
        value *= -1000;
        break;
      case 2:
        value *= 1e9;
        break;
      case 3:
        value = std::pow(10, value * 20 - 8);
        break;
      case 4:
        value = static_cast<float>(value);
        break;
      case 5:
        value = std::round(value * 1e8) / 1e8;
        break;
      case 6: {
        const std::uint64_t bits = random();
        std::memcpy(&value, &bits, sizeof value);
        if (!std::isfinite(value)) continue;
        break;
      }
      case 7:  // powers of two: the doubles below are closer than those above
        value = std::ldexp(1, -static_cast<int>(random() % 40));
        break;
    }
    for (const double near : {value, std::nextafter(value, 0.0), std::nextafter(value, 1e300)}) {
      char expected[64];
      const auto end = std::to_chars(expected, expected + sizeof expected, near).ptr;
      const std::string ours = number(near);
      double back = 0;
      std::from_chars(ours.data(), ours.data() + ours.size(), back);
      ASSERT_EQ(back, near) << ours;
      std::string digits;
      for (const char c : ours.substr(0, ours.find('e'))) {
        if (c >= '0' && c <= '9') digits += c;
      }
      std::string expected_digits;
      for (const char c : std::string(expected, end).substr(0, std::string(expected, end).find('e'))) {
        if (c >= '0' && c <= '9') expected_digits += c;
      }
      const auto trim = [](std::string& text) {
        text.erase(0, text.find_first_not_of('0'));
        text.erase(text.find_last_not_of('0') + 1);
      };
      trim(digits);
      trim(expected_digits);
      ASSERT_EQ(digits, expected_digits) << ours << " " << std::string(expected, end);
    }
  }
}

TEST(JsonNumber, Integers) {
  for (const std::int64_t value :
       {std::int64_t{0}, std::int64_t{-1}, std::int64_t{99}, std::int64_t{100},
        std::numeric_limits<std::int64_t>::min(), std::numeric_limits<std::int64_t>::max()}) {
    std::string text;
    append_json_number(text, value);
    EXPECT_EQ(text, std::to_string(value));
  }
  std::string text;
  append_json_number(text, std::numeric_limits<std::uint64_t>::max());
  EXPECT_EQ(text, "18446744073709551615");
}

TEST(JsonString, Escapes) {
  EXPECT_EQ(quoted("plain ascii, longer than eight"), "\"plain ascii, longer than eight\"");
  EXPECT_EQ(quoted("a\"b\\c\n\t\r\b\f"), "\"a\\\"b\\\\c\\n\\t\\r\\b\\f\"");
  EXPECT_EQ(quoted(std::string_view("\0\x1f\x7f", 3)), "\"\\u0000\\u001f\\u007f\"");
  EXPECT_EQ(quoted("gr\xC3\xBC\xC3\x9F \xF0\x9F\x98\x80"), "\"gr\xC3\xBC\xC3\x9F \xF0\x9F\x98\x80\"");
}

// Expected: Python's bytes.decode("utf-8", errors="replace").
TEST(JsonString, InvalidUtf8BecomesReplacementCharacters) {
  const std::string r = "\xEF\xBF\xBD";
  EXPECT_EQ(quoted("a\xFFz"), "\"a" + r + "z\"");
  EXPECT_EQ(quoted("\xC3"), "\"" + r + "\"");
  EXPECT_EQ(quoted("\xE2\x82"), "\"" + r + "\"");
  EXPECT_EQ(quoted("\xE2\x82z"), "\"" + r + "z\"");
  EXPECT_EQ(quoted("\xED\xA0\x80"), "\"" + r + r + r + "\"");  // a surrogate
  EXPECT_EQ(quoted("\xC0\xAF"), "\"" + r + r + "\"");          // overlong
  EXPECT_EQ(quoted("\xF4\x90\x80\x80"), "\"" + r + r + r + r + "\"");
  EXPECT_EQ(quoted("\xF0\x9F\x98"), "\"" + r + "\"");
  EXPECT_FALSE(is_valid_utf8("abcdefgh\x80"));
  EXPECT_TRUE(is_valid_utf8("abcdefgh\xC3\xBC"));
}

TEST(JsonValue, ValidTextPassesAndOtherBecomesAString) {
  const auto value = [](std::string_view text) {
    std::string out;
    append_json_value(out, text);
    return out;
  };
  EXPECT_EQ(value("{\"a\": [1, -2.5e3, true, null, \"x\"]}"), "{\"a\": [1, -2.5e3, true, null, \"x\"]}");
  EXPECT_EQ(value("{\n\"a\":\r1}"), "{ \"a\": 1}");
  for (const char* bad : {"", "{", "nope", "NaN", "{\"a\":NaN}", "01", "1.", "-", "[1,]", "{\"a\":1,}",
                          "\"\x01\"", "1 2", "\"\\x\"", "{'a':1}", "\xFF", "[1"}) {
    EXPECT_FALSE(is_valid_json(bad)) << bad;
    EXPECT_EQ(value(bad), quoted(bad));
  }
  EXPECT_TRUE(is_valid_json(std::string(150, '[') + std::string(150, ']')));
  EXPECT_FALSE(is_valid_json(std::string(100'000, '[') + std::string(100'000, ']')));
}

TEST(JsonCapture, NumbersStayNumbersAndCutsAreMarked) {
  const auto capture = [](std::string_view text, CaptureForm form, bool cut = false) {
    std::string out;
    append_json_capture(out, text, static_cast<std::uint8_t>(form) | (cut ? kCaptureCut : 0));
    return out;
  };
  EXPECT_EQ(capture("42", CaptureForm::text), "\"42\"");
  EXPECT_EQ(capture("42", CaptureForm::integer), "42");
  EXPECT_EQ(capture("-123456789012345678901234567890", CaptureForm::integer),
            "-123456789012345678901234567890");
  EXPECT_EQ(capture("007", CaptureForm::integer), "\"007\"");
  EXPECT_EQ(capture("0.5", CaptureForm::real), "0.5");
  EXPECT_EQ(capture("nan", CaptureForm::real), "null");
  EXPECT_EQ(capture("Tensor(2)", CaptureForm::repr), "\"Tensor(2)\"");
  EXPECT_EQ(capture("abc", CaptureForm::text, true), "\"abc\xE2\x80\xA6\"");
  EXPECT_EQ(capture("12", CaptureForm::integer, true), "\"12\xE2\x80\xA6\"");
}

TEST(JsonReader, ReadsEscapes) {
  JsonReader reader(R"( "a\u00fc\ud83d\ude00\n\ud83d\/" )");
  EXPECT_EQ(reader.string(), "a\xC3\xBC\xF0\x9F\x98\x80\n\xEF\xBF\xBD/");
  reader.expect_end();
}

TEST(JsonReader, SaysWhereAndWhat) {
  JsonReader reader("{1");
  reader.expect('{');
  try {
    reader.string();
    FAIL();
  } catch (const FormatError& error) {
    EXPECT_STREQ(error.what(), "JSON: expected '\"' at byte 1, found \"1\"");
  }
}

}  // namespace
}  // namespace rubriscope
