// Builds records in memory for tests and benchmarks, without a journal.
#pragma once

#include <cstring>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include "rubriscope/core/ids.h"
#include "rubriscope/core/record.h"

namespace rubriscope::testing {

/// One record that owns its bytes.
class OwnedRecord {
 public:
  RecordView view() const { return {reinterpret_cast<const RecordHeader*>(words_.data()), schema_.get()}; }
  RecordHeader& header() { return *reinterpret_cast<RecordHeader*>(words_.data()); }

 private:
  friend class RecordBuilder;
  std::vector<std::uint64_t> words_;
  SchemaPtr schema_;
};

class RecordBuilder {
 public:
  explicit RecordBuilder(SchemaPtr schema)
      : schema_(std::move(schema)),
        scores_(schema_->slots.size(), std::numeric_limits<double>::quiet_NaN()),
        durations_(schema_->slots.size(), 0),
        statuses_(schema_->slots.size(), Status::skipped) {
    header_.kind = schema_->kind == Schema::Kind::tree      ? RecordKind::snapshot
                   : schema_->kind == Schema::Kind::scalars ? RecordKind::scalars
                                                            : RecordKind::observation;
    header_.schema = schema_->id;
    header_.group = kNoGroup;
    header_.sample = kNoSample;
    header_.time_ns = 1'700'000'000'000'000'000;
  }

  RecordBuilder& sequence(std::uint64_t value) { return header_.sequence = value, *this; }
  RecordBuilder& step(std::int64_t value) { return header_.step = value, *this; }
  RecordBuilder& time(std::int64_t ns, std::int64_t monotonic_ns = 0) {
    header_.time_ns = ns;
    header_.monotonic_ns = monotonic_ns;
    return *this;
  }
  RecordBuilder& thread(std::uint32_t value) { return header_.thread = value, *this; }
  RecordBuilder& group(std::int64_t value) { return header_.group = value, *this; }
  RecordBuilder& sample(std::int32_t value) { return header_.sample = value, *this; }
  RecordBuilder& event(RecordKind kind, std::uint64_t duration_ns, Outcome outcome) {
    header_.kind = kind;
    header_.duration_ns = duration_ns;
    header_.outcome = outcome;
    return *this;
  }
  RecordBuilder& score(std::size_t slot, double value, std::uint64_t duration_ns = 0) {
    scores_[slot] = value;
    statuses_[slot] = Status::scored;
    if (header_.kind == RecordKind::snapshot) durations_[slot] = duration_ns;
    return *this;
  }
  RecordBuilder& failed(std::size_t slot, std::string_view reason, std::uint64_t duration_ns = 0) {
    statuses_[slot] = Status::failed;
    durations_[slot] = duration_ns;
    return extra(ExtraTag::reason, reason, 0, static_cast<std::uint16_t>(slot));
  }
  RecordBuilder& extra(ExtraTag tag, std::string_view text, std::uint8_t form = 0, std::uint16_t slot = 0) {
    const ExtraHeader extra{tag, form, slot, static_cast<std::uint32_t>(text.size())};
    extras_.append(reinterpret_cast<const char*>(&extra), sizeof extra);
    extras_ += text;
    extras_.resize(padded(extras_.size()));
    return *this;
  }
  RecordBuilder& episode(std::string_view name) { return extra(ExtraTag::episode, name); }

  OwnedRecord build() {
    const std::size_t slots = scores_.size();
    const std::size_t length = sizeof(RecordHeader) + arrays_bytes(slots) + extras_.size();
    header_.slots = static_cast<std::uint16_t>(slots);
    header_.extras_bytes = static_cast<std::uint32_t>(extras_.size());
    header_.length_and_state = static_cast<std::uint32_t>(length) | RecordHeader::kCommitted;
    OwnedRecord record;
    record.schema_ = schema_;
    record.words_.resize(length / 8);
    auto* at = reinterpret_cast<char*>(record.words_.data());
    const auto put = [&at](const void* from, std::size_t bytes) {
      if (bytes != 0) std::memcpy(at, from, bytes);
      at += bytes;
    };
    put(&header_, sizeof header_);
    put(scores_.data(), slots * 8);
    put(durations_.data(), slots * 8);
    put(statuses_.data(), slots);
    at += padded(slots) - slots;
    put(extras_.data(), extras_.size());
    return record;
  }

 private:
  SchemaPtr schema_;
  RecordHeader header_{};
  std::vector<double> scores_;
  std::vector<std::uint64_t> durations_;
  std::vector<Status> statuses_;
  std::string extras_;
};

/// A tree of `slots` nodes named root, node_1, node_2, …
inline SchemaPtr make_tree(std::size_t slots, std::uint32_t id = 0) {
  Schema schema;
  schema.id = id;
  for (std::size_t i = 0; i < slots; ++i) {
    schema.slots.push_back({{i == 0 ? "root" : "node_" + std::to_string(i)}, "Leaf"});
  }
  return std::make_shared<const Schema>(std::move(schema));
}

inline SchemaPtr make_scalars(const std::vector<std::string>& names, std::uint32_t id = 1) {
  Schema schema;
  schema.id = id;
  schema.kind = Schema::Kind::scalars;
  for (const auto& name : names) schema.slots.push_back({{name}, ""});
  return std::make_shared<const Schema>(std::move(schema));
}

inline SchemaPtr make_event(std::size_t values, const std::vector<std::string>& fields,
                            std::uint32_t id = 2) {
  Schema schema;
  schema.id = id;
  schema.kind = Schema::Kind::event;
  schema.name = "mem.write";
  schema.attributes = R"({"layer": "memory"})";
  schema.fields = fields;
  for (std::size_t i = 0; i < values; ++i) schema.slots.push_back({{"value_" + std::to_string(i)}, ""});
  return std::make_shared<const Schema>(std::move(schema));
}

inline SessionInfo make_session(std::string name = "run", int number = 1) {
  char id[37];
  std::snprintf(id, sizeof id, "11111111-1111-4111-8111-%012d", number);
  return {id, std::move(name), 1'700'000'000'123'456'789, "{\"lr\": 0.1}"};
}

inline WriterInfo make_writer(int number = 1, std::int32_t rank = 0) {
  char id[37];
  std::snprintf(id, sizeof id, "22222222-2222-4222-8222-%012d", number);
  WriterInfo writer;
  writer.id = id;
  writer.rank = rank;
  writer.host = "host";
  writer.pid = 42;
  writer.started_ns = 1'700'000'000'000'000'000 + number;
  return writer;
}

inline std::vector<RecordView> views(const std::vector<OwnedRecord>& records) {
  std::vector<RecordView> found;
  found.reserve(records.size());
  for (const auto& record : records) found.push_back(record.view());
  return found;
}

}  // namespace rubriscope::testing
