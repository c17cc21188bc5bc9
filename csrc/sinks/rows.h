// What the tables of the database sinks have in common (docs/formats.md).
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>

#include "rubriscope/core/record.h"

namespace rubriscope::rows {

/// step_key, scalar_key and event_key are writer_key << kSequenceBits | sequence.
inline constexpr int kSequenceBits = 40;
inline constexpr std::uint64_t kSequenceMask = (std::uint64_t{1} << kSequenceBits) - 1;

inline constexpr std::int64_t kRecordsPerExtent = 256;
inline constexpr std::size_t kMaxKnownEpisodes = 4096;

/// The lowest step_key of a writer.
constexpr std::int64_t first_key(std::int64_t writer_key) { return writer_key << kSequenceBits; }

/// ledger_tiles.tile_key is writer_key << kSequenceBits | level << kTileIndexBits | index;
/// ledger_entries.entry_key is writer_key << kSequenceBits | the entry's place in the log.
inline constexpr int kTileIndexBits = 36;

constexpr std::int64_t tile_key(std::int64_t writer_key, int level, std::uint64_t index) {
  return first_key(writer_key) | std::int64_t{level} << kTileIndexBits | static_cast<std::int64_t>(index);
}

/// What a run of neighbouring records of one writer covers. An index over the steps themselves would cost a
/// third of the writing speed; these few rows find a step nearly as fast, and add up to a session's counts.
struct Extent {
  std::int64_t first_key{};
  std::int64_t last_key{};
  std::int64_t steps{};
  std::int64_t scalars{};
  std::int64_t events{};
  std::int64_t first_ns{};
  std::int64_t last_ns{};
  bool one_episode{};
  std::string episode;  // when one_episode
  std::int64_t first_step{};
  std::int64_t last_step{};

  std::int64_t records() const { return steps + scalars + events; }

  void add(std::int64_t key, std::int64_t time_ns) {
    if (records() == 0) {
      first_key = key;
      first_ns = last_ns = time_ns;
    }
    last_key = key;
    first_ns = std::min(first_ns, time_ns);
    last_ns = std::max(last_ns, time_ns);
  }
  void add_step(std::int64_t step, bool episode_changed, bool has_episode, const std::string& name) {
    if (steps == 0) {
      first_step = last_step = step;
      one_episode = has_episode;
      episode = name;
    } else if (episode_changed && (!has_episode || name != episode)) {
      one_episode = false;
    }
    ++steps;
    first_step = std::min(first_step, step);
    last_step = std::max(last_step, step);
  }
};

/// False for a sealed record: nobody can tell.
inline bool all_scored(const RecordView& record) {
  if (record.is_sealed()) return false;
  const Status* const statuses = record.statuses();
  return std::all_of(statuses, statuses + record.header->slots, [](Status s) { return s == Status::scored; });
}

/// One letter a slot.
inline std::string_view write_statuses(const RecordView& record, std::string& out) {
  out.resize(record.header->slots);
  const Status* const statuses = record.statuses();
  for (std::size_t i = 0; i < out.size(); ++i) {
    out[i] = statuses[i] == Status::scored ? 's' : statuses[i] == Status::skipped ? 'k' : 'f';
  }
  return out;
}

/// The extras that have a column of their own; `text.data()` is null where there is none.
struct Columns {
  RecordView::Extra action{};
  RecordView::Extra observation{};
  std::string_view episode;
  std::string_view metadata_json;
};

/// Of several extras of a kind the first.
inline Columns columns_of(const RecordView& record) {
  Columns found;
  record.for_each_extra([&](const RecordView::Extra& extra) {
    switch (extra.tag) {
      case ExtraTag::episode:
        if (found.episode.data() == nullptr) found.episode = extra.text;
        break;
      case ExtraTag::action:
        if (found.action.text.data() == nullptr) found.action = extra;
        break;
      case ExtraTag::observation:
        if (found.observation.text.data() == nullptr) found.observation = extra;
        break;
      case ExtraTag::metadata:
        if (found.metadata_json.data() == nullptr) found.metadata_json = extra.text;
        break;
      default:
        break;
    }
  });
  return found;
}

}  // namespace rubriscope::rows
