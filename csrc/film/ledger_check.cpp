#include "rubriscope/film/ledger_check.h"

#include <memory>
#include <set>
#include <tuple>
#include <utility>

#include "rubriscope/film/ledger_order.h"
#include "rubriscope/sinks/rows.h"

namespace rubriscope {

namespace {

/// Whether a text holds the bytes of this UUID.
bool is_uuid(std::string_view bytes, std::string_view uuid) {
  const UuidBytes raw = uuid_bytes(uuid);
  return bytes == std::string_view(reinterpret_cast<const char*>(raw.data()), raw.size());
}

}  // namespace

void LedgerCheck::define(std::string_view entry) {
  EntryFields fields(entry);
  auto& [texts, integers] = fields;
  if (!is_uuid(texts[3], log_.writer_id)) throw LedgerProblem("a definition in the log is another writer's");
  if (fields.kind() == ledger::EntryKind::gap || fields.kind() == ledger::EntryKind::late) return;
  if (fields.kind() == ledger::EntryKind::schema) {
    const auto id = static_cast<std::uint32_t>(integers[5]);
    const auto [known, is_new] = definitions_.try_emplace(id, texts[32]);
    if (!is_new && known->second != texts[32]) {
      throw LedgerProblem("the log defines schema " + std::to_string(id) + " twice");
    }
    return;
  }
  // The session's row is its first writer's: each rank has its own name, time and metadata for it.
  const bool session = !writer_.is_first || (source_.stored(texts[24]) == writer_.name &&
                                             integers[25] == writer_.created_ns && writer_.created_at_holds);
  const bool same = session && is_uuid(texts[2], writer_.session_id) && integers[27] == writer_.rank &&
                    integers[28] == writer_.world_size && source_.stored(texts[29]) == writer_.host &&
                    integers[30] == writer_.pid && integers[31] == writer_.started_ns;
  if (!same) throw LedgerProblem("the row of the session or of its writer says otherwise than the log");
  if (writer_.is_first && writer_.metadata != texts[26]) {
    throw LedgerProblem("the session's metadata is not what the log says");
  }
}

void LedgerCheck::row(LedgerTable table, LedgerRows& row) {
  decode_cbor(row.bytes(), decoded_);
  const RecordHeader& header = *decoded_.view().header;
  if (decoded_.writer_id != log_.writer_id ||
      header.sequence != (static_cast<std::uint64_t>(row.key()) & rows::kSequenceMask)) {
    throw LedgerProblem(record_name(row.key()) + ": its row holds the bytes of record " +
                        std::to_string(header.sequence) + " of writer " + decoded_.writer_id);
  }
  if (table != table_of(header.kind)) {
    throw LedgerProblem(record_name(row.key()) + ": its row is in another kind's table");
  }
  decoded_.schema = schema(row, header.schema);
  row.check(decoded_.view(), writer_.session);
}

/// The schema of this number, where its rows say what the log says of it.
const SchemaPtr& LedgerCheck::schema(LedgerRows& row, std::uint32_t id) {
  const std::int64_t schema_key = row.schema_key();
  const auto known = schemas_.find(schema_key);
  if (known != schemas_.end() && known->second->id == id) return known->second;
  const std::string name = record_name(row.key());
  const auto definition = definitions_.find(id);
  if (definition == definitions_.end()) {
    throw LedgerProblem(name + ": the log does not define its schema");
  }
  const std::optional<LedgerSchema> stored = source_.schema(schema_key);
  if (!stored) throw LedgerProblem(name + ": its schema's row is missing");
  auto expected = std::make_shared<const Schema>(Schema::from_definition_json(definition->second, id));
  if (stored->session != writer_.session || stored->kind != expected->kind_name() ||
      stored->definition != definition->second) {
    throw LedgerProblem(name + ": its schema's row says otherwise than the log");
  }
  using Rubrics = std::set<std::tuple<std::string, std::int64_t, std::string>>;
  Rubrics found;
  for (const LedgerSchema::Rubric& rubric : stored->rubrics) {
    if (rubric.pointer != "$[" + std::to_string(rubric.slot) + "]") {
      throw LedgerProblem("rubric " + rubric.path + ": its jp was changed");
    }
    found.emplace(rubric.path, rubric.slot, rubric.class_name);
  }
  Rubrics defined;
  for (std::size_t slot = 0; slot < expected->slots.size(); ++slot) {
    for (const std::string& path : expected->slots[slot].paths) {
      defined.emplace(source_.stored(path), static_cast<std::int64_t>(slot),
                      source_.stored(expected->slots[slot].class_name));
    }
  }
  if (found != defined) throw LedgerProblem(name + ": the rows of its rubrics say otherwise than the log");
  return schemas_.insert_or_assign(schema_key, std::move(expected)).first->second;
}

}  // namespace rubriscope
