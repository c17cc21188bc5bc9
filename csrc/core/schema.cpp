#include "rubriscope/core/schema.h"

#include "rubriscope/core/errors.h"
#include "rubriscope/core/json.h"

namespace rubriscope {

std::optional<std::uint16_t> Schema::field(std::string_view field_name) const {
  for (std::size_t i = 0; i < fields.size(); ++i) {
    if (fields[i] == field_name) return static_cast<std::uint16_t>(i);
  }
  return std::nullopt;
}

std::string_view Schema::kind_name() const {
  return kind == Kind::tree ? "tree" : kind == Kind::scalars ? "scalars" : "event";
}

std::string Schema::definition_json() const {
  std::string text;
  JsonWriter json(text);
  json.begin_object().key("kind").string(kind_name());
  if (!sealed.empty()) json.key("sealed").string(sealed);
  if (kind == Kind::event) {
    json.key("name").string(name).key("attributes").string(attributes).key("fields").begin_array();
    for (const std::string& of_field : fields) json.string(of_field);
    json.end_array();
  }
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
  std::string key;
  const auto next_key = [&key](JsonReader& reader) {
    key = reader.string();
    reader.expect(':');
  };
  const auto be_at = [&key](std::string_view expected) {
    if (key != expected) {
      throw FormatError("schema definition: expected the key \"" + std::string(expected) + "\", found \"" +
                        key + "\"");
    }
  };
  const auto expect_key = [&](JsonReader& reader, std::string_view expected) {
    next_key(reader);
    be_at(expected);
  };
  Schema schema;
  schema.id = id;
  JsonReader reader(text);
  reader.expect('{');
  expect_key(reader, "kind");
  const std::string kind = reader.string();
  if (kind != "tree" && kind != "scalars" && kind != "event") {
    throw FormatError("schema definition: kind must be \"tree\", \"scalars\" or \"event\", found \"" + kind +
                      "\"");
  }
  schema.kind = kind == "tree" ? Kind::tree : kind == "scalars" ? Kind::scalars : Kind::event;
  reader.expect(',');
  next_key(reader);
  if (key == "sealed") {
    schema.sealed = reader.string();
    reader.expect(',');
    next_key(reader);
  }
  if (schema.kind == Kind::event) {
    be_at("name");
    schema.name = reader.string();
    reader.expect(',');
    expect_key(reader, "attributes");
    schema.attributes = reader.string();
    reader.expect(',');
    expect_key(reader, "fields");
    reader.expect('[');
    if (!reader.accept(']')) {
      do {
        schema.fields.push_back(reader.string());
      } while (reader.accept(','));
      reader.expect(']');
    }
    reader.expect(',');
    next_key(reader);
  }
  be_at("slots");
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
