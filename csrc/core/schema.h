// A schema names the columns of a record's arrays: a rubric tree's nodes in pre-order, the names of one
// recorder.log() call, or an event's numbers and texts. It is written once, and records refer to it by
// number.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace rubriscope {

struct Slot {
  std::vector<std::string> paths;  ///< every dotted path the node is reachable by; the root's is "root"
  std::string class_name;          ///< the node's class, "" for a scalar
  std::string details{};           ///< JSON text about the node (module, source digest, configuration), or ""

  bool operator==(const Slot&) const = default;
};

struct Schema {
  enum class Kind : std::uint8_t { tree = 1, scalars = 2, event = 3 };

  std::uint32_t id{};  ///< unique within a writer, from 0
  Kind kind{Kind::tree};
  std::vector<Slot> slots;

  // Of events only.
  std::string name{};                 ///< of the sight point, the trace point, …
  std::string attributes{};           ///< JSON object: what is the same in every record
  std::vector<std::string> fields{};  ///< names of the texts; the slots name the numbers

  /// The definition itself, encrypted (vault/sealer.h): the names here are tokens that stand for it. "" where
  /// nothing is.
  std::string sealed{};

  /// The place of a field, or nothing.
  std::optional<std::uint16_t> field(std::string_view field_name) const;

  /// "tree", "scalars" or "event".
  std::string_view kind_name() const;

  /// Content without the id: equal definitions are the same schema in every writer.
  /// JSON: {"kind":"tree","slots":[{"class":"Gate","paths":["root"],"details":"{…}"},…]}; no details, no key.
  /// Between kind and slots an event has "name":"…","attributes":"{…}","fields":["…",…].
  /// Behind kind an encrypted one has "sealed":"…".
  std::string definition_json() const;

  /// The inverse of definition_json(). Throws FormatError.
  static Schema from_definition_json(std::string_view text, std::uint32_t id);
};

using SchemaPtr = std::shared_ptr<const Schema>;

}  // namespace rubriscope
