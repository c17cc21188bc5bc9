#include "rubriscope/core/cbor.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <string>

#include "rubriscope/core/errors.h"
#include "support/random_record.h"

namespace rubriscope {
namespace {

using namespace rubriscope::testing;

std::string hex(std::span<const std::byte> bytes) {
  constexpr char digits[] = "0123456789abcdef";
  std::string text;
  for (const std::byte b : bytes) {
    text += digits[std::to_integer<int>(b) >> 4];
    text += digits[std::to_integer<int>(b) & 15];
  }
  return text;
}

std::string integer_hex(std::int64_t value) {
  std::byte buffer[16];
  return hex({buffer, static_cast<std::size_t>(cbor::put_integer(buffer, value) - buffer)});
}

std::string real_hex(double value) {
  std::byte buffer[16];
  return hex({buffer, static_cast<std::size_t>(cbor::put_real(buffer, value) - buffer)});
}

// RFC 8949, Appendix A.
TEST(CborPrimitives, Integers) {
  EXPECT_EQ(integer_hex(0), "00");
  EXPECT_EQ(integer_hex(1), "01");
  EXPECT_EQ(integer_hex(10), "0a");
  EXPECT_EQ(integer_hex(23), "17");
  EXPECT_EQ(integer_hex(24), "1818");
  EXPECT_EQ(integer_hex(25), "1819");
  EXPECT_EQ(integer_hex(100), "1864");
  EXPECT_EQ(integer_hex(1000), "1903e8");
  EXPECT_EQ(integer_hex(1000000), "1a000f4240");
  EXPECT_EQ(integer_hex(1000000000000), "1b000000e8d4a51000");
  EXPECT_EQ(integer_hex(-1), "20");
  EXPECT_EQ(integer_hex(-10), "29");
  EXPECT_EQ(integer_hex(-100), "3863");
  EXPECT_EQ(integer_hex(-1000), "3903e7");
  EXPECT_EQ(integer_hex(std::numeric_limits<std::int64_t>::min()), "3b7fffffffffffffff");
  std::byte buffer[16];
  EXPECT_EQ(
      hex({buffer, static_cast<std::size_t>(
                       cbor::put_head(buffer, cbor::Major::unsigned_integer, ~std::uint64_t{0}) - buffer)}),
      "1bffffffffffffffff");
}

TEST(CborPrimitives, Reals) {
  EXPECT_EQ(real_hex(0.0), "f90000");
  EXPECT_EQ(real_hex(-0.0), "f98000");
  EXPECT_EQ(real_hex(1.0), "f93c00");
  EXPECT_EQ(real_hex(1.1), "fb3ff199999999999a");
  EXPECT_EQ(real_hex(1.5), "f93e00");
  EXPECT_EQ(real_hex(65504.0), "f97bff");
  EXPECT_EQ(real_hex(100000.0), "fa47c35000");
  EXPECT_EQ(real_hex(3.4028234663852886e+38), "fa7f7fffff");
  EXPECT_EQ(real_hex(1.0e+300), "fb7e37e43c8800759c");
  EXPECT_EQ(real_hex(5.960464477539063e-8), "f90001");
  EXPECT_EQ(real_hex(0.00006103515625), "f90400");
  EXPECT_EQ(real_hex(-4.0), "f9c400");
  EXPECT_EQ(real_hex(-4.1), "fbc010666666666666");
  EXPECT_EQ(real_hex(std::numeric_limits<double>::infinity()), "f97c00");
  EXPECT_EQ(real_hex(-std::numeric_limits<double>::infinity()), "f9fc00");
  EXPECT_EQ(real_hex(std::numeric_limits<double>::quiet_NaN()), "f97e00");
}

TEST(CborPrimitives, EveryHalfComesBackAsAHalf) {
  for (std::uint32_t half = 0; half <= 0xFFFF; ++half) {
    const std::byte bytes[3] = {std::byte{0xF9}, static_cast<std::byte>(half >> 8),
                                static_cast<std::byte>(half)};
    cbor::Reader reader(bytes);
    const double value = reader.real("a half");
    if (std::isnan(value)) {
      EXPECT_EQ(real_hex(value), "f97e00");
      continue;
    }
    ASSERT_EQ(real_hex(value), hex(bytes));
    // The doubles beside it do not fit.
    const double beside = std::nextafter(value, 1e308);
    if (std::isfinite(value)) {
      ASSERT_EQ(real_hex(beside).substr(0, 2), beside == 0 ? "f9" : "fb");
    }
  }
}

TEST(CborPrimitives, ReaderRefusesTruncatedHeads) {
  const std::byte bytes[] = {std::byte{0x1b}, std::byte{0}, std::byte{0}};
  EXPECT_THROW(cbor::Reader(bytes).unsigned_integer("a number"), FormatError);
  EXPECT_THROW(cbor::Reader({}).head(), FormatError);
  const std::byte indefinite[] = {std::byte{0x9f}, std::byte{0xff}};
  EXPECT_THROW(cbor::Reader(indefinite).head(), FormatError);
}

TEST(Uuid, RoundTripAndRefusal) {
  const std::string text = "0123abcd-89ef-4567-8901-abcdefabcdef";
  EXPECT_EQ(uuid_text(uuid_bytes(text)), text);
  for (const char* bad : {"", "0123abcd89ef45678901abcdefabcdef", "0123abcd-89ef-4567-8901-abcdefabcdeg",
                          "0123abcd-89ef-4567-8901-abcdefabcdef0", "0123abcd+89ef-4567-8901-abcdefabcdef"}) {
    EXPECT_THROW(uuid_bytes(bad), ValueError) << bad;
  }
}

std::vector<std::byte> encode(const OwnedRecord& record) {
  std::vector<std::byte> bytes;
  encode_cbor(record.view(), make_session(), make_writer(), bytes);
  return bytes;
}

// By hand after docs/formats.md; tests/python/test_cbor_peer.py has cbor2 agree.
TEST(CborRecord, DocumentedBytes) {
  RecordBuilder builder(make_tree(3, 5));
  builder.sequence(7).step(-2).time(1000, 300).thread(1).group(4).sample(0).episode("ep").score(0, 0.5, 24);
  builder.failed(1, "raised", 300).extra(ExtraTag::action, "12", 1).extra(ExtraTag::observation, "hi");
  EXPECT_EQ(hex(encode(builder.build())),
            "b4"  // a map of 20
            "0001"
            "0101"                                  // version, kind
            "025011111111111141118111000000000001"  // session
            "035022222222222242228222000000000001"  // writer
            "0407"
            "0505"
            "061903e8"
            "0719012c"
            "0801"  // sequence, schema, times, thread
            "09626570"
            "0a21"
            "0b04"
            "0c00"  // episode, step, group, sample
            "0d83f93800f6f6"
            "0e43010200"
            "0f831818"
            "19012c"
            "00"  // scores, statuses, durations
            "100c"
            "11626869"
            "12820100"                // action, observation, forms
            "14a10166726169736564");  // reasons
}

TEST(CborRecord, ScalarsHaveNoDurationsAndKeepNaN) {
  RecordBuilder builder(make_scalars({"loss", "kl"}));
  builder.score(0, std::numeric_limits<double>::quiet_NaN()).score(1, 1.5);
  const OwnedRecord record = builder.build();
  const std::vector<std::byte> bytes = encode(record);
  EXPECT_NE(hex(bytes).find("0d82f97e00f93e00"
                            "0e420101"),
            std::string::npos);
  const DecodedRecord back = decode_cbor(bytes);
  EXPECT_EQ(content(back.view()), content(record.view()));
}

TEST(CborRecord, RandomRecordsComeBack) {
  std::mt19937_64 random(3);
  CborEncoder encoder(make_session(), make_writer());
  std::vector<SchemaPtr> schemas = {make_event(0, {}), make_event(0, {"a"}),
                                    make_event(3, {"a", "b", "c", "d"}),
                                    make_event(40, std::vector<std::string>(30, "f"))};
  for (const std::size_t slots : {0, 1, 2, 15, 24, 300, 5000, 65535}) schemas.push_back(make_tree(slots));
  for (const SchemaPtr& schema : schemas) {
    const std::size_t slots = schema->slots.size();
    for (int i = 0; i < (slots > 1000 ? 3 : 300); ++i) {
      const OwnedRecord record = random_record(random, schema, random() >> 24);
      std::vector<std::byte> bytes(3);  // appends
      encoder.encode(record.view(), bytes);
      const auto encoded = std::span(bytes).subspan(3);
      const DecodedRecord back = decode_cbor(encoded);
      ASSERT_EQ(content(back.view()), content(record.view()));
      ASSERT_EQ(back.session_id, make_session().id);
      ASSERT_EQ(back.writer_id, make_writer().id);
      // Decoding and encoding again gives the same bytes: the form is canonical.
      std::vector<std::byte> again;
      encoder.encode(back.view(), again);
      ASSERT_EQ(hex(again), hex(encoded));

      const CborFields fields = read_cbor_fields(encoded);
      ASSERT_EQ(fields.sequence, record.view().header->sequence);
      ASSERT_EQ(fields.slots, slots);
      for (const std::size_t slot : {std::size_t{0}, slots / 2, slots - 1}) {
        if (slot >= slots) continue;
        const double expected = record.view().scores()[slot];
        const double found = fields.score(slot);
        ASSERT_TRUE(found == expected || (std::isnan(found) && std::isnan(expected)));
        ASSERT_EQ(fields.duration_ns(slot), record.view().durations_ns()[slot]);
      }
    }
  }
}

TEST(CborRecord, AnEventsBytes) {
  RecordBuilder builder(make_event(2, {"trace_id", "count", "note"}, 7));
  builder.event(RecordKind::span, 1500, Outcome::blocked)
      .score(1, 2.5)
      .extra(ExtraTag::field, "mem_1", 0, 0)
      .extra(ExtraTag::field, "3", 1, 1)
      .extra(ExtraTag::field, "long", 3 | kCaptureCut, 2);
  EXPECT_EQ(decode_cbor(encode(builder.build())).view().header->outcome, Outcome::blocked);
  const std::string bytes = hex(encode(builder.build()));
  EXPECT_EQ(bytes.substr(bytes.find("0d82")),
            "0d82f6f94100"  // 13: [null, 2.5]
            "0e420001"      // 14: statuses
            "18231905dc"    // 35: 1500 ns
            "182402"        // 36: blocked
            "1825a300656d656d5f3101030264"
            "6c6f6e67"        // 37: {0: "mem_1", 1: 3, 2: "long"}
            "1826a1021883");  // 38: {2: repr, cut}
}

TEST(CborRecord, RefusesFormsWithoutFields) {
  RecordBuilder builder(make_event(0, {"a"}));
  builder.extra(ExtraTag::field, "x", 3, 0);
  std::vector<std::byte> bytes = encode(builder.build());
  EXPECT_EQ(decode_cbor(bytes).view().header->kind, RecordKind::observation);
  bytes[bytes.size() - 2] = std::byte{1};  // the form of another field
  EXPECT_THROW(decode_cbor(bytes), FormatError);
  bytes[bytes.size() - 2] = std::byte{0};
  bytes.back() = std::byte{0};  // a form that has no need to be said
  EXPECT_THROW(decode_cbor(bytes), FormatError);
}

TEST(CborRecord, InvalidUtf8IsReplaced) {
  RecordBuilder builder(make_tree(1));
  builder.score(0, 1).extra(ExtraTag::action, "a\xFFz");
  const DecodedRecord back = decode_cbor(encode(builder.build()));
  EXPECT_EQ(back.view().extra(ExtraTag::action), "a\xEF\xBF\xBDz");
}

TEST(CborRecord, LastOfSeveralExtrasOfASlotIsKept) {
  RecordBuilder builder(make_tree(3));
  builder.extra(ExtraTag::explanation, "late slot", 0, 2)
      .extra(ExtraTag::explanation, "first", 0, 1)
      .extra(ExtraTag::explanation, "second", 0, 1);
  const DecodedRecord back = decode_cbor(encode(builder.build()));
  std::string found;
  back.view().for_each_extra(
      [&](const RecordView::Extra& e) { found += std::to_string(e.slot) + std::string(e.text) + ";"; });
  EXPECT_EQ(found, "1second;2late slot;");
}

// Whatever the bytes, the decoder answers or throws FormatError; the sanitizers watch.
TEST(CborRecord, DamagedBytesAreRefusedOrRead) {
  std::mt19937_64 random(5);
  for (const SchemaPtr& schema : {make_tree(4), make_event(2, {"a", "b", "c", "d", "e"})}) {
    const OwnedRecord record = random_record(random, schema, 9);
    const std::vector<std::byte> good = encode(record);
    for (std::size_t length = 0; length < good.size(); ++length) {
      EXPECT_THROW(decode_cbor(std::span(good).first(length)), FormatError) << length;
    }
    std::vector<std::byte> longer = good;
    longer.push_back(std::byte{0});
    EXPECT_THROW(decode_cbor(longer), FormatError);
    for (std::size_t at = 0; at < good.size(); ++at) {
      for (int bit = 0; bit < 8; ++bit) {
        std::vector<std::byte> bad = good;
        bad[at] ^= static_cast<std::byte>(1 << bit);
        try {
          (void)decode_cbor(bad);
        } catch (const FormatError&) {
          continue;
        }
      }
    }
  }
}

TEST(CborRecord, NewerVersionIsNamed) {
  RecordBuilder builder(make_tree(1));
  std::vector<std::byte> bytes = encode(builder.build());
  ASSERT_EQ(bytes[2], std::byte{1});
  bytes[2] = std::byte{2};
  try {
    (void)decode_cbor(bytes);
    FAIL();
  } catch (const FormatError& error) {
    EXPECT_NE(std::string(error.what()).find("format version 2"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace rubriscope
