#include "rubriscope/sinks/postgres/copy_encoder.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <optional>
#include <vector>

#include "rubriscope/core/errors.h"
#include "support/record_builder.h"

namespace rubriscope::postgres {
namespace {

using testing::make_scalars;
using testing::make_session;
using testing::make_tree;
using testing::make_writer;
using testing::OwnedRecord;
using testing::RecordBuilder;

/// Reads the format as PostgreSQL's manual describes it (COPY, "Binary Format"), not as the encoder writes
/// it.
class Parser {
 public:
  explicit Parser(std::string_view bytes) : bytes_(bytes) {
    EXPECT_EQ(take(11), std::string_view("PGCOPY\n\377\r\n\0", 11));
    EXPECT_EQ(integer(4), 0);  // flags
    EXPECT_EQ(integer(4), 0);  // length of the header's extension
  }

  using Row = std::vector<std::optional<std::string>>;

  std::vector<Row> rows() {
    std::vector<Row> found;
    for (std::int64_t fields = integer(2); fields != -1; fields = integer(2)) {
      Row& row = found.emplace_back();
      for (std::int64_t i = 0; i < fields; ++i) {
        const std::int64_t length = integer(4);
        row.push_back(length == -1 ? std::nullopt : std::optional<std::string>(take(length)));
      }
    }
    EXPECT_TRUE(bytes_.empty());
    return found;
  }

  std::int64_t integer(std::size_t width) { return as_integer(take(static_cast<std::int64_t>(width))); }

  static std::int64_t as_integer(std::string_view bytes) {
    std::int64_t value = static_cast<signed char>(bytes[0]);
    for (const char c : bytes.substr(1)) value = value << 8 | static_cast<unsigned char>(c);
    return value;
  }
  static double as_real(std::string_view bytes) {
    EXPECT_EQ(bytes.size(), 8U);
    return std::bit_cast<double>(as_integer(bytes));
  }

 private:
  std::string_view take(std::int64_t count) {
    const std::string_view taken = bytes_.substr(0, static_cast<std::size_t>(count));
    EXPECT_EQ(taken.size(), static_cast<std::size_t>(count));
    bytes_.remove_prefix(taken.size());
    return taken;
  }

  std::string_view bytes_;
};

/// The elements of a float8[] of one dimension.
std::vector<std::optional<double>> elements(const std::string& field) {
  const auto at = [&](std::size_t offset) {
    return Parser::as_integer(std::string_view(field).substr(offset, 4));
  };
  EXPECT_EQ(at(8), 701);
  if (at(0) == 0) return {};
  EXPECT_EQ(at(0), 1);
  EXPECT_EQ(at(16), 1);
  std::vector<std::optional<double>> found;
  std::size_t offset = 20;
  bool any_null = false;
  for (std::int64_t i = 0; i < at(12); ++i) {
    const std::int64_t length = at(offset);
    offset += 4;
    if (length == -1) {
      found.emplace_back();
      any_null = true;
      continue;
    }
    found.emplace_back(Parser::as_real(std::string_view(field).substr(offset, 8)));
    offset += 8;
  }
  EXPECT_EQ(offset, field.size());
  EXPECT_EQ(at(4), any_null ? 1 : 0);
  return found;
}

Parser::Row step_row(const OwnedRecord& record, std::string_view episode = {}) {
  CopyEncoder encoder(make_session(), make_writer(), 3, 5);
  CopyStream stream;
  stream.begin();
  const RecordView view = record.view();
  encoder.step(view, 9, rows::columns_of(view), episode, stream);
  stream.end();
  const auto found = Parser(stream.bytes()).rows();
  EXPECT_EQ(found.size(), 1U);
  return found.front();
}

TEST(PostgresCopy, AStepsRow) {
  const auto record = RecordBuilder(make_tree(3))
                          .sequence(70'000)
                          .step(-4)
                          .time(1'700'000'000'000'000'123)
                          .score(0, 0.25)
                          .score(1, -1e300)
                          .failed(2, "why")
                          .group(12)
                          .sample(3)
                          .extra(ExtraTag::action, "an answer")
                          .extra(ExtraTag::observation, "17", static_cast<std::uint8_t>(CaptureForm::integer))
                          .extra(ExtraTag::metadata, "{\"a\":1}")
                          .build();
  const auto row = step_row(record, "ep");
  ASSERT_EQ(row.size(), 15U);
  EXPECT_EQ(Parser::as_integer(*row[0]), (std::int64_t{5} << 40) + 70'000);
  EXPECT_EQ(Parser::as_integer(*row[1]), 3);
  EXPECT_EQ(*row[2], "ep");
  EXPECT_EQ(Parser::as_integer(*row[3]), -4);
  EXPECT_EQ(Parser::as_integer(*row[4]), 1'700'000'000'000'000'123);
  EXPECT_EQ(Parser::as_real(*row[5]), 0.25);
  EXPECT_EQ(*row[6], "an answer");
  EXPECT_EQ(*row[7], "17");
  EXPECT_EQ(*row[8], "{\"a\":1}");
  EXPECT_EQ(Parser::as_integer(*row[9]), 12);
  EXPECT_EQ(row[10]->size(), 4U);
  EXPECT_EQ(Parser::as_integer(*row[10]), 3);
  EXPECT_EQ(Parser::as_integer(*row[11]), 9);
  EXPECT_EQ(elements(*row[12]), (std::vector<std::optional<double>>{0.25, -1e300, std::nullopt}));
  EXPECT_EQ(*row[13], "ssf");
  std::vector<std::byte> record_bytes;
  encode_cbor(record.view(), make_session(), make_writer(), record_bytes);
  EXPECT_EQ(*row[14], std::string(reinterpret_cast<const char*>(record_bytes.data()), record_bytes.size()));
}

TEST(PostgresCopy, WhatIsAbsentIsNull) {
  const auto row = step_row(RecordBuilder(make_tree(1)).build());
  for (const std::size_t column : {2, 5, 6, 7, 8, 9, 10}) EXPECT_FALSE(row[column]) << column;
  EXPECT_EQ(elements(*row[12]), (std::vector<std::optional<double>>{std::nullopt}));
  EXPECT_EQ(*row[13], "k");
  const auto scored = step_row(RecordBuilder(make_tree(1)).score(0, 1).build());
  EXPECT_FALSE(scored[13]);
}

TEST(PostgresCopy, ASchemaWithoutSlotsIsAnEmptyArray) {
  const auto row = step_row(RecordBuilder(make_tree(0)).build());
  EXPECT_TRUE(elements(*row[12]).empty());
  EXPECT_EQ(row[12]->size(), 12U);
}

TEST(PostgresCopy, ScalarsKeepWhatIsNotFinite) {
  CopyEncoder encoder(make_session(), make_writer(), 3, 5);
  CopyStream stream;
  stream.begin();
  const auto record = RecordBuilder(make_scalars({"a", "b"}))
                          .sequence(1)
                          .score(0, std::numeric_limits<double>::infinity())
                          .score(1, std::nan(""))
                          .build();
  encoder.scalars(record.view(), 2, stream);
  stream.end();
  const auto rows = Parser(stream.bytes()).rows();
  ASSERT_EQ(rows.size(), 1U);
  ASSERT_EQ(rows[0].size(), 7U);
  const auto values = elements(*rows[0][5]);
  EXPECT_TRUE(std::isinf(*values[0]));
  EXPECT_TRUE(std::isnan(*values[1]));
}

TEST(PostgresCopy, TakingPiecesAwayLeavesTheStreamWhole) {
  CopyEncoder encoder(make_session(), make_writer(), 3, 5);
  CopyStream stream;
  std::string whole;
  stream.begin();
  for (std::uint64_t i = 0; i < 500; ++i) {
    const auto record = RecordBuilder(make_tree(2))
                            .sequence(i)
                            .score(0, 1)
                            .extra(ExtraTag::action, std::string(i * 7, 'x'))
                            .build();
    encoder.step(record.view(), 1, rows::columns_of(record.view()), {}, stream);
    if (i % 7 == 0) {
      whole += stream.bytes();
      stream.taken();
    }
  }
  stream.end();
  whole += stream.bytes();
  const auto rows = Parser(whole).rows();
  ASSERT_EQ(rows.size(), 500U);
  for (std::size_t i = 0; i < rows.size(); ++i) EXPECT_EQ(rows[i][6]->size(), i * 7);
}

TEST(PostgresCopy, TextHasNeitherNulNorWhatIsNotUtf8) {
  std::string text = "kept ";
  append_text(text, std::string_view("a\0b\xFF", 4));
  EXPECT_EQ(text,
            "kept a\xEF\xBF\xBD"
            "b\xEF\xBF\xBD");
  const auto row = step_row(
      RecordBuilder(make_tree(1)).extra(ExtraTag::action, std::string_view("\0", 1), kCaptureCut).build());
  EXPECT_EQ(*row[6], "\xEF\xBF\xBD\xE2\x80\xA6");
}

TEST(PostgresCopy, JsonEscapesStandForCharacters) {
  const auto made = [](std::string_view json) {
    std::string out;
    append_json(out, json);
    return out;
  };
  EXPECT_EQ(made(R"({"a":"\u0000"})"), R"({"a":"\ufffd"})");
  EXPECT_EQ(made(R"({"a":"\\u0000"})"), R"({"a":"\\u0000"})");
  EXPECT_EQ(made(R"({"a":"\\\u0000"})"), R"({"a":"\\\ufffd"})");
  EXPECT_EQ(made(R"(["\ud83d\ude00","\ud83d","\ude00","\ud83dx","\ud83d\u0041"])"),
            R"(["\ud83d\ude00","\ufffd","\ufffd","\ufffdx","\ufffd\u0041"])");
  EXPECT_EQ(made(R"("\n\"\u00e4")"), R"("\n\"\u00e4")");
}

TEST(PostgresCopy, ASequenceThatDoesNotFitIsRefused) {
  const CopyColumns columns(3, 5);
  const auto record = RecordBuilder(make_tree(1)).sequence(std::uint64_t{1} << 40).build();
  EXPECT_THROW((void)columns.key(record.view()), SinkError);
}

}  // namespace
}  // namespace rubriscope::postgres
