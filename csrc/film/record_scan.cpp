#include "rubriscope/film/record_scan.h"

#include <algorithm>

#include "rubriscope/core/errors.h"

namespace rubriscope::film {

std::vector<std::string> all_paths(const std::vector<SchemaRow>& schemas) {
  std::vector<std::string> found;
  std::unordered_map<std::string_view, bool> seen;
  for (const SchemaRow& row : schemas) {
    for (const Slot& slot : row.schema->slots) {
      for (const std::string& path : slot.paths) {
        if (seen.emplace(path, true).second) found.push_back(path);
      }
    }
  }
  return found;
}

bool step_matches(const FilmFilter& filter, std::int64_t step) {
  return (!filter.start || step >= *filter.start) && (!filter.stop || step < *filter.stop);
}

bool matches(const FilmFilter& filter, const CborFields& fields) {
  if (!step_matches(filter, fields.step)) return false;
  return !filter.episode || (fields.episode.data() != nullptr && fields.episode == *filter.episode);
}

SlotFinder::SlotFinder(const std::vector<SchemaRow>& schemas, std::string_view path) {
  for (const SchemaRow& row : schemas) {
    for (std::size_t slot = 0; slot < row.schema->slots.size(); ++slot) {
      const auto& paths = row.schema->slots[slot].paths;
      if (std::find(paths.begin(), paths.end(), path) == paths.end()) continue;
      slots_.emplace(row.key, slot);
      break;
    }
  }
}

std::size_t SlotFinder::slot(std::int64_t schema_key) {
  if (schema_key != last_key_) {
    const auto found = slots_.find(schema_key);
    last_slot_ = found == slots_.end() ? kNone : found->second;
    last_key_ = schema_key;
  }
  return last_slot_;
}

EpisodeNumbers::EpisodeNumbers(const std::vector<std::string>& episodes) {
  numbers_.reserve(episodes.size());
  for (const std::string& name : episodes) {
    numbers_.emplace(name, static_cast<std::int32_t>(numbers_.size()));
  }
}

std::int32_t EpisodeNumbers::number(std::string_view name) {
  if (name.data() == nullptr) return -1;
  if (last_ >= 0 && name == last_name_) return last_;
  last_name_ = name;
  const auto found = numbers_.find(last_name_);
  return last_ = found == numbers_.end() ? -1 : found->second;
}

void append_position(PositionColumns& at, EpisodeNumbers& episodes, const CborFields& fields,
                     std::size_t writer, std::int32_t rank) {
  at.step.push_back(fields.step);
  at.time_ns.push_back(fields.time_ns);
  at.sequence.push_back(static_cast<std::int64_t>(fields.sequence));
  at.writer.push_back(static_cast<std::int32_t>(writer));
  at.rank.push_back(rank);
  at.group.push_back(fields.group);
  at.sample.push_back(fields.sample);
  at.episode.push_back(episodes.number(fields.episode));
}

ScoreScan::ScoreScan(SlotFinder finder, EpisodeNumbers episodes, FilmFilter filter, Schema::Kind kind,
                     std::string where)
    : finder_(std::move(finder)),
      episodes_(std::move(episodes)),
      filter_(std::move(filter)),
      kind_(kind),
      where_(std::move(where)) {
  if (kind_ == Schema::Kind::scalars) filter_.episode.reset();  // scalars belong to none
}

void ScoreScan::reserve(std::size_t records) {
  PositionColumns& at = columns_.at;
  at.step.reserve(records);
  at.time_ns.reserve(records);
  at.sequence.reserve(records);
  at.writer.reserve(records);
  at.rank.reserve(records);
  at.group.reserve(records);
  at.sample.reserve(records);
  at.episode.reserve(records);
  columns_.score.reserve(records);
  columns_.status.reserve(records);
  if (kind_ == Schema::Kind::tree) columns_.duration_ns.reserve(records);
}

void ScoreScan::add(std::int64_t schema_key, std::span<const std::byte> record, std::size_t writer,
                    std::int32_t rank) {
  const std::size_t slot = finder_.slot(schema_key);
  if (slot == SlotFinder::kNone) return;
  const CborFields fields = read_cbor_fields(record);
  if (!matches(filter_, fields)) return;
  if (slot >= fields.slots) throw FormatError(where_ + ": a record has fewer slots than its schema");
  append_position(columns_.at, episodes_, fields, writer, rank);
  columns_.score.push_back(fields.score(slot));
  columns_.status.push_back(static_cast<std::uint8_t>(fields.statuses[slot]));
  if (kind_ == Schema::Kind::tree) {
    columns_.duration_ns.push_back(static_cast<std::int64_t>(fields.duration_ns(slot)));
  }
}

SummaryScan::SummaryScan(const std::vector<SchemaRow>& schemas, std::size_t bins, std::int64_t low,
                         std::int64_t high, FilmFilter filter, std::string where)
    : filter_(std::move(filter)),
      where_(std::move(where)),
      low_(low),
      steps_(static_cast<double>(high) - static_cast<double>(low) + 1),
      shares_(steps_ < static_cast<double>(bins) ? static_cast<std::size_t>(std::max(steps_, 0.0)) : bins) {
  if (bins == 0 || bins > 1'000'000) {
    throw ValueError("bins must be from 1 to 1000000, got " + std::to_string(bins));
  }
  std::unordered_map<std::string, std::size_t> index_of;
  for (const std::string& path : all_paths(schemas)) {
    index_of.emplace(path, summaries_.size());
    PathSummary& summary = summaries_.emplace_back();
    summary.path = path;
    summary.curve.assign(shares_, 0.0);
  }
  counts_.assign(summaries_.size(), std::vector<std::int64_t>(shares_));
  for (const SchemaRow& row : schemas) {
    auto& of_schema = places_[row.key];
    for (std::size_t slot = 0; slot < row.schema->slots.size(); ++slot) {
      for (const std::string& path : row.schema->slots[slot].paths) {
        of_schema.emplace_back(slot, index_of.at(path));
      }
    }
  }
}

void SummaryScan::add(std::int64_t schema_key, std::span<const std::byte> record) {
  const CborFields fields = read_cbor_fields(record);
  if (shares_ == 0 || !matches(filter_, fields)) return;
  const auto of_schema = places_.find(schema_key);
  if (of_schema == places_.end()) {
    throw FormatError(where_ + ": a record names schema " + std::to_string(schema_key) +
                      ", which is not of its session");
  }
  scores_.resize(fields.slots);
  durations_.resize(fields.slots);
  fields.read_scores(scores_.data());
  fields.read_durations(durations_.data());
  const auto share =
      std::min(static_cast<std::size_t>(std::max(
                   0.0, static_cast<double>(fields.step - low_) * static_cast<double>(shares_) / steps_)),
               shares_ - 1);
  for (const auto& [slot, index] : of_schema->second) {
    if (slot >= fields.slots) throw FormatError(where_ + ": a record has fewer slots than its schema");
    PathSummary& summary = summaries_[index];
    const auto status = static_cast<Status>(fields.statuses[slot]);
    if (status == Status::skipped) {
      ++summary.skipped;
      continue;
    }
    summary.duration_ns += static_cast<double>(durations_[slot]);
    if (status != Status::scored) {
      ++summary.failed;
      continue;
    }
    const double score = scores_[slot];
    if (summary.scored++ == 0) summary.least = summary.greatest = score;
    summary.least = std::min(summary.least, score);
    summary.greatest = std::max(summary.greatest, score);
    const double from_mean = score - summary.mean;
    summary.mean += from_mean / static_cast<double>(summary.scored);
    summary.squares += from_mean * (score - summary.mean);
    summary.curve[share] += score;
    ++counts_[index][share];
  }
}

std::vector<PathSummary> SummaryScan::take() {
  for (std::size_t i = 0; i < summaries_.size(); ++i) {
    for (std::size_t share = 0; share < shares_; ++share) {
      summaries_[i].curve[share] = counts_[i][share] == 0
                                       ? std::numeric_limits<double>::quiet_NaN()
                                       : summaries_[i].curve[share] / static_cast<double>(counts_[i][share]);
    }
  }
  return std::move(summaries_);
}

}  // namespace rubriscope::film
