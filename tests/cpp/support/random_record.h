// Random records for property-style tests, and what makes two records the same.
#pragma once

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <map>
#include <random>
#include <string>

#include "support/record_builder.h"

namespace rubriscope::testing {

inline std::string random_text(std::mt19937_64& random, std::size_t most) {
  static const std::array<const char*, 8> pieces = {
      "a", "\n", "\"", "\\", "gr\xC3\xBC\xC3\x9F", "\xF0\x9F\x98\x80", "0", " "};
  std::string text;
  const std::size_t length = random() % (most + 1);
  while (text.size() < length) text += pieces[random() % pieces.size()];
  return text;
}

inline OwnedRecord random_record(std::mt19937_64& random, const SchemaPtr& schema, std::uint64_t sequence) {
  RecordBuilder builder(schema);
  const std::size_t slots = schema->slots.size();
  builder.sequence(sequence)
      .step(static_cast<std::int64_t>(random() % 1000) - 100)
      .time(1'700'000'000'000'000'000 + static_cast<std::int64_t>(random() % 1'000'000'000),
            static_cast<std::int64_t>(random() >> 2))
      .thread(static_cast<std::uint32_t>(random() % 70'000));
  const bool snapshot = schema->kind == Schema::Kind::tree;
  const bool event = schema->kind == Schema::Kind::event;
  const auto slot_of = [&] { return static_cast<std::uint16_t>(random() % slots); };
  for (std::size_t i = 0; i < slots; ++i) {
    switch (random() % 6) {
      case 0:
        break;
      case 1:
        if (snapshot) {
          builder.failed(i, random_text(random, 20), random() % 5000);
        }
        break;
      case 2:
        builder.score(i, static_cast<double>(static_cast<int>(random() % 7) - 3) / 4, random() % 100);
        break;
      case 3:
        builder.score(i, static_cast<float>(static_cast<double>(random()) / 1e18), random() % 100'000);
        break;
      case 4:
        builder.score(i, std::ldexp(static_cast<double>(random() % 2048), -static_cast<int>(random() % 40)),
                      random());
        break;
      default:
        builder.score(i, static_cast<double>(random() >> 11) * 0x1p-53, random() % 300);
    }
  }
  if (event) {
    constexpr std::array<RecordKind, 3> kinds = {RecordKind::observation, RecordKind::span,
                                                 RecordKind::checkpoint};
    builder.event(kinds[random() % 3], random() >> (random() % 60),
                  static_cast<Outcome>(random() % kOutcomes));
    for (std::size_t i = 0; i < schema->fields.size(); ++i) {
      const auto field = static_cast<std::uint16_t>(i);
      switch (random() % 8) {
        case 0:
          break;
        case 1:
          builder.extra(ExtraTag::field, std::to_string(static_cast<std::int64_t>(random())), 1, field);
          break;
        case 2:
          builder.extra(ExtraTag::field, "0.1", 2, field);
          break;
        case 3:
          builder.extra(ExtraTag::field, random_text(random, 30), 3 | kCaptureCut, field);
          break;
        case 4:
          builder.extra(ExtraTag::field, std::string("\x00\xFF\x80", random() % 4), 4, field);
          break;
        case 5:
          builder.extra(ExtraTag::field, R"([1, {"a": null}])", 5, field);
          break;
        case 6:
          builder.extra(ExtraTag::field, "123456789012345678901", 1, field);
          break;
        default:
          builder.extra(ExtraTag::field, random_text(random, 40), 0, field);
      }
    }
  }
  if (!snapshot && !event) return builder.build();
  if (random() % 8 != 0) builder.episode("ep-" + std::to_string(random() % 5));
  if (random() % 2 != 0) builder.group(static_cast<std::int64_t>(random() % 100) - 50);
  if (random() % 2 != 0) builder.sample(static_cast<std::int32_t>(random() % 100));
  if (random() % 3 == 0) builder.extra(ExtraTag::metadata, "{\"a\": [1, \"gr\xC3\xBC\xC3\x9F\"]}");
  if (event) return builder.build();
  for (const ExtraTag tag : {ExtraTag::action, ExtraTag::observation}) {
    switch (random() % 6) {
      case 0:
        builder.extra(tag, random_text(random, 300));
        break;
      case 1:
        builder.extra(tag, std::to_string(static_cast<std::int64_t>(random())), 1);
        break;
      case 2:
        builder.extra(tag, "0.1", 2);
        break;
      case 3:
        builder.extra(tag, "nan", 2);
        break;
      case 4:
        builder.extra(tag, random_text(random, 30), 3 | kCaptureCut);
        break;
      default:
        break;
    }
  }
  if (slots != 0) {
    if (random() % 3 == 0) builder.extra(ExtraTag::explanation, random_text(random, 40), 0, slot_of());
    if (random() % 3 == 0) builder.extra(ExtraTag::explanation, random_text(random, 40), 0, slot_of());
    if (random() % 4 == 0) builder.extra(ExtraTag::score_metadata, "{\"k\": 1}", 0, slot_of());
    if (random() % 4 == 0) builder.extra(ExtraTag::calls, std::to_string(2 + random() % 50), 0, slot_of());
  }
  return builder.build();
}

/// What a record says, whatever the order of its extras; the last one wins where a slot has several.
inline std::map<std::string, std::string> content(const RecordView& record) {
  std::map<std::string, std::string> found;
  const RecordHeader& header = *record.header;
  found["kind"] = std::to_string(static_cast<int>(header.kind));
  found["slots"] = std::to_string(header.slots);
  found["sequence"] = std::to_string(header.sequence);
  found["time"] = std::to_string(header.time_ns) + " " + std::to_string(header.monotonic_ns);
  found["step"] = std::to_string(header.step);
  found["group"] = std::to_string(header.group);
  found["sample"] = std::to_string(header.sample);
  found["outcome"] =
      std::to_string(static_cast<int>(header.outcome)) + " " + std::to_string(header.duration_ns);
  found["thread"] = std::to_string(header.thread);
  for (std::size_t i = 0; i < header.slots; ++i) {
    std::string& slot = found["slot " + std::to_string(i)];
    slot = std::to_string(static_cast<int>(record.statuses()[i])) + " " +
           std::to_string(record.durations_ns()[i]);
    char score[40];
    std::snprintf(score, sizeof score, " %a", record.scores()[i]);
    slot += std::isnan(record.scores()[i]) ? " nan" : score;
  }
  record.for_each_extra([&](const RecordView::Extra& extra) {
    found["extra " + std::to_string(static_cast<int>(extra.tag)) + " " + std::to_string(extra.slot)] =
        std::to_string(extra.form) + " " + std::string(extra.text);
  });
  return found;
}

}  // namespace rubriscope::testing
