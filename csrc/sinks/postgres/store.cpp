#include "rubriscope/sinks/postgres/store.h"

#include <optional>
#include <string>
#include <string_view>

#include "rubriscope/sinks/postgres/copy_encoder.h"

namespace rubriscope::postgres {

namespace {

constexpr std::uint32_t kBytea = 17;
constexpr std::uint32_t kBigint = 20;
constexpr std::uint32_t kText = 25;

// All that goes with the streams in one statement: an answer takes a way to the server and back, which may
// be far. Not prepared: a pooler may come between.
constexpr const char* kPutRest = R"(
WITH put_extents AS (
  INSERT INTO extents(session_id, first_key, last_key, steps, scalars, events, first_ns, last_ns, episode_id,
    first_step, last_step)
  SELECT $1::bigint, * FROM unnest($2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[],
    $7::bigint[], $8::bigint[], $9::text[], $10::bigint[], $11::bigint[])
  ON CONFLICT(first_key) DO UPDATE SET last_key = excluded.last_key, steps = excluded.steps,
    scalars = excluded.scalars, events = excluded.events, first_ns = excluded.first_ns,
    last_ns = excluded.last_ns, episode_id = excluded.episode_id, first_step = excluded.first_step,
    last_step = excluded.last_step
), put_log AS (
  INSERT INTO ledgers SELECT $12::bigint, $13::bigint, $14::text WHERE $13::bigint IS NOT NULL
  ON CONFLICT(writer_key) DO UPDATE SET size = excluded.size,
    checkpoint = coalesce(excluded.checkpoint, ledgers.checkpoint)
), put_entries AS (
  INSERT INTO ledger_entries SELECT * FROM unnest($15::bigint[], $16::bytea[])
), put_tiles AS (
  INSERT INTO ledger_tiles SELECT * FROM unnest($17::bigint[], $18::bytea[])
  ON CONFLICT(tile_key) DO UPDATE SET hashes = excluded.hashes
)
INSERT INTO episodes SELECT $1::bigint, * FROM unnest($19::text[], $20::bigint[]) ON CONFLICT DO NOTHING)";

std::string copy_into(const char* table, const char* columns) {
  return std::string("COPY ") + table + "(" + columns + ") FROM STDIN WITH (FORMAT binary)";
}

std::string_view text_of(const std::vector<ledger::Hash>& hashes) {
  return {reinterpret_cast<const char*>(hashes.data()), hashes.size() * sizeof(ledger::Hash)};
}

Parameters rest_of(std::int64_t session_id, std::int64_t writer_key, const Portion& portion) {
  Parameters parameters;
  parameters.int8(session_id);
  const std::vector<rows::Extent>& extents = portion.extents();
  const auto integers = [&](auto&& value) { parameters.array(kBigint, extents, value); };
  const auto of_steps = [](std::int64_t rows::Extent::* step) {
    return [step](const rows::Extent& extent) {
      return extent.steps != 0 ? std::optional(extent.*step) : std::nullopt;
    };
  };
  integers([](const rows::Extent& extent) { return extent.first_key; });
  integers([](const rows::Extent& extent) { return extent.last_key; });
  integers([](const rows::Extent& extent) { return extent.steps; });
  integers([](const rows::Extent& extent) { return extent.scalars; });
  integers([](const rows::Extent& extent) { return extent.events; });
  integers([](const rows::Extent& extent) { return extent.first_ns; });
  integers([](const rows::Extent& extent) { return extent.last_ns; });
  parameters.array(kText, extents, [](const rows::Extent& extent) {
    return extent.one_episode && extent.steps != 0 ? std::optional<std::string_view>(extent.episode)
                                                   : std::nullopt;
  });
  integers(of_steps(&rows::Extent::first_step));
  integers(of_steps(&rows::Extent::last_step));

  static const ledger::LogChange kNoChange;
  const ledger::LogChange* const log = portion.log();
  parameters.int8(writer_key);
  if (log != nullptr) {
    parameters.int8(static_cast<std::int64_t>(log->size));
  } else {
    parameters.null();
  }
  if (log != nullptr && log->checkpoint) {
    parameters.text(*log->checkpoint);
  } else {
    parameters.null();
  }
  const ledger::LogChange& change = log != nullptr ? *log : kNoChange;
  parameters.array(kBigint, change.entries, [&](const ledger::LogChange::Entry& entry) {
    return rows::first_key(writer_key) | static_cast<std::int64_t>(entry.place);
  });
  parameters.array(kBytea, change.entries,
                   [](const ledger::LogChange::Entry& entry) { return std::string_view(entry.bytes); });
  parameters.array(kBigint, change.tiles, [&](const ledger::Tile& tile) {
    return rows::tile_key(writer_key, tile.level, tile.index);
  });
  parameters.array(kBytea, change.tiles, [](const ledger::Tile& tile) { return text_of(tile.hashes); });

  parameters.array(kText, portion.episodes(),
                   [](const Episode& episode) { return std::string_view(episode.name); });
  parameters.array(kBigint, portion.episodes(), [](const Episode& episode) { return episode.started_ns; });
  return parameters;
}

}  // namespace

void store(Connection& connection, std::int64_t session_id, std::int64_t writer_key, Portion& portion) {
  static const std::string kSteps = copy_into("steps", CopyColumns::kSteps);
  static const std::string kScalars = copy_into("scalars", CopyColumns::kScalars);
  static const std::string kEvents = copy_into("events", CopyColumns::kEvents);
  std::optional<Parameters> rest;  // made with the first stream
  const auto copy = [&](const std::string& sql, std::string_view (Portion::*next)()) {
    std::string_view piece = (portion.*next)();
    if (piece.empty()) return;
    connection.begin_copy((rest ? sql : "BEGIN; " + sql).c_str());
    for (; !piece.empty(); piece = (portion.*next)()) connection.copy(piece);
    connection.end_copy();
    // While the server stores what it was sent.
    if (!rest) rest = rest_of(session_id, writer_key, portion);
    connection.finish_copy();
  };
  copy(kSteps, &Portion::steps);
  copy(kScalars, &Portion::scalars);
  copy(kEvents, &Portion::events);
  if (!rest) throw SinkError("a transaction without records", false);
  // The lock on a new episode's name holds up the other writers until the end: it comes next.
  connection.run(kPutRest, *rest);
  connection.run("COMMIT");
}

}  // namespace rubriscope::postgres
