#include "rubriscope/core/schema.h"

#include "rubriscope/core/errors.h"
#include "rubriscope/core/json.h"

namespace rubriscope {

std::string Schema::definition_json() const {
  std::string text;
  JsonWriter json(text);
  json.begin_object().key("kind").string(kind == Kind::tree ? "tree" : "scalars");
  json.key("slots").begin_array();
  for (const Slot& slot : slots) {
    json.begin_object().key("class").string(slot.class_name).key("paths").begin_array();
    for (const std::string& path : slot.paths) json.string(path);
    json.end_array();
    if (!slot.details.empty()) json.key("details").string(slot.details);
    json.end_object();
  }
  json.end_array().end_object();
  return text;
}

Schema Schema::from_definition_json(std::string_view text, std::uint32_t id) {
  const auto expect_key = [](JsonReader& reader, std::string_view key) {
    const std::string found = reader.string();
    if (found != key) {
      throw FormatError("schema definition: expected the key \"" + std::string(key) + "\", found \"" + found +
                        "\"");
    }
    reader.expect(':');
  };
  Schema schema;
  schema.id = id;
  JsonReader reader(text);
  reader.expect('{');
  expect_key(reader, "kind");
  const std::string kind = reader.string();
  if (kind != "tree" && kind != "scalars") {
    throw FormatError("schema definition: kind must be \"tree\" or \"scalars\", found \"" + kind + "\"");
  }
  schema.kind = kind == "tree" ? Kind::tree : Kind::scalars;
  reader.expect(',');
  expect_key(reader, "slots");
  reader.expect('[');
  if (!reader.accept(']')) {
    do {
      Slot& slot = schema.slots.emplace_back();
      reader.expect('{');
      expect_key(reader, "class");
      slot.class_name = reader.string();
      reader.expect(',');
      expect_key(reader, "paths");
      reader.expect('[');
      if (!reader.accept(']')) {
        do {
          slot.paths.push_back(reader.string());
        } while (reader.accept(','));
        reader.expect(']');
      }
      if (reader.accept(',')) {
        expect_key(reader, "details");
        slot.details = reader.string();
      }
      reader.expect('}');
    } while (reader.accept(','));
    reader.expect(']');
  }
  reader.expect('}');
  reader.expect_end();
  return schema;
}

}  // namespace rubriscope
