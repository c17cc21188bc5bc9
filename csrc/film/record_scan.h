// What a film finds out from stored records one after another, wherever they are stored.
#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "rubriscope/core/cbor.h"
#include "rubriscope/core/schema.h"
#include "rubriscope/film/film_reader.h"

namespace rubriscope::film {

/// A stored schema; its key is what the rows of its records name.
struct SchemaRow {
  std::int64_t key{};
  SchemaPtr schema;
};

/// The paths of all schemas, each once, in the order of the slots.
std::vector<std::string> all_paths(const std::vector<SchemaRow>& schemas);

bool step_matches(const FilmFilter& filter, std::int64_t step);
/// Whether a snapshot's step and episode are wanted.
bool matches(const FilmFilter& filter, const CborFields& fields);

/// The slot of a path in each schema.
class SlotFinder {
 public:
  static constexpr std::size_t kNone = std::numeric_limits<std::size_t>::max();

  SlotFinder(const std::vector<SchemaRow>& schemas, std::string_view path);

  bool found() const { return !slots_.empty(); }
  std::size_t slot(std::int64_t schema_key);

 private:
  std::unordered_map<std::int64_t, std::size_t> slots_;
  std::int64_t last_key_{-1};
  std::size_t last_slot_{kNone};
};

/// The place of an episode's name among all of the session's.
class EpisodeNumbers {
 public:
  explicit EpisodeNumbers(const std::vector<std::string>& episodes);
  std::int32_t number(std::string_view name);

 private:
  std::unordered_map<std::string, std::int32_t> numbers_;
  std::string last_name_;
  std::int32_t last_{-1};
};

void append_position(PositionColumns& at, EpisodeNumbers& episodes, const CborFields& fields,
                     std::size_t writer, std::int32_t rank);

/// One rubric's scores, or one scalar's values.
class ScoreScan {
 public:
  /// `where` is named in errors. The episode of `filter` is used for snapshots only.
  ScoreScan(SlotFinder finder, EpisodeNumbers episodes, FilmFilter filter, Schema::Kind kind,
            std::string where);

  void reserve(std::size_t records);
  /// Throws FormatError.
  void add(std::int64_t schema_key, std::span<const std::byte> record, std::size_t writer, std::int32_t rank);
  ScoreColumns take() { return std::move(columns_); }
  Schema::Kind kind() const { return kind_; }

 private:
  SlotFinder finder_;
  EpisodeNumbers episodes_;
  FilmFilter filter_;
  Schema::Kind kind_;
  std::string where_;
  ScoreColumns columns_;
};

/// Figures of every node, in memory bounded by the tree.
class SummaryScan {
 public:
  /// The curves share out the steps from `low` to `high`, both included; where there are none, nothing is
  /// added. Throws ValueError for bad `bins`.
  SummaryScan(const std::vector<SchemaRow>& schemas, std::size_t bins, std::int64_t low, std::int64_t high,
              FilmFilter filter, std::string where);

  /// Throws FormatError.
  void add(std::int64_t schema_key, std::span<const std::byte> record);
  std::vector<PathSummary> take();

 private:
  FilmFilter filter_;
  std::string where_;
  std::int64_t low_;
  double steps_;
  std::size_t shares_;
  std::vector<PathSummary> summaries_;
  std::vector<std::vector<std::int64_t>> counts_;
  // For each schema: pairs of slot and summary, by slot.
  std::unordered_map<std::int64_t, std::vector<std::pair<std::size_t, std::size_t>>> places_;
  std::vector<double> scores_;
  std::vector<std::uint64_t> durations_;
};

}  // namespace rubriscope::film
