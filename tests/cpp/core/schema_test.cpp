#include "rubriscope/core/schema.h"

#include <gtest/gtest.h>

#include "rubriscope/core/errors.h"

namespace rubriscope {
namespace {

TEST(Schema, DefinitionIsTheDocumentedJson) {
  Schema schema;
  schema.id = 7;
  schema.slots = {{{"root"}, "Gate"}, {{"a", "b.a"}, "Exact"}};
  EXPECT_EQ(schema.definition_json(),
            "{\"kind\":\"tree\",\"slots\":[{\"class\":\"Gate\",\"paths\":[\"root\"]},"
            "{\"class\":\"Exact\",\"paths\":[\"a\",\"b.a\"]}]}");
}

TEST(Schema, RoundTrip) {
  Schema schema;
  schema.kind = Schema::Kind::scalars;
  schema.slots = {{{"loss \"x\"\n"}, ""}, {{"gr\xC3\xBC\xC3\x9F"}, ""}, {{}, "no paths"}};
  const Schema back = Schema::from_definition_json(schema.definition_json(), 3);
  EXPECT_EQ(back.id, 3u);
  EXPECT_EQ(back.kind, schema.kind);
  ASSERT_EQ(back.slots.size(), 3u);
  for (std::size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(back.slots[i].paths, schema.slots[i].paths);
    EXPECT_EQ(back.slots[i].class_name, schema.slots[i].class_name);
  }
  Schema empty;
  EXPECT_TRUE(Schema::from_definition_json(empty.definition_json(), 0).slots.empty());
}

TEST(Schema, WhiteSpaceIsFine) {
  const Schema schema = Schema::from_definition_json(
      " { \"kind\" : \"tree\" , \"slots\" : [ { \"class\" : \"A\", \"paths\" : [ \"root\" ] } ] } ", 0);
  EXPECT_EQ(schema.slots.at(0).paths.at(0), "root");
}

TEST(Schema, RefusesWhatIsNotADefinition) {
  for (const char* bad :
       {"", "{}", "[]", "{\"kind\":\"forest\",\"slots\":[]}", "{\"slots\":[],\"kind\":\"tree\"}",
        "{\"kind\":\"tree\",\"slots\":[]}x", "{\"kind\":\"tree\",\"slots\":[{\"class\":\"A\"}]}",
        "{\"kind\":\"tree\",\"slots\":[{\"class\":\"A\",\"paths\":[1]}]}"}) {
    EXPECT_THROW(Schema::from_definition_json(bad, 0), FormatError) << bad;
  }
}

}  // namespace
}  // namespace rubriscope
