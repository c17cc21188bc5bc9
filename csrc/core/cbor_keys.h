// What the keys of a record's map are (docs/formats.md); for the two files that write and read them.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "rubriscope/core/record.h"

namespace rubriscope::cbor {

inline constexpr std::uint64_t kFormatVersion = 1;

enum Key : std::uint64_t {
  kVersion = 0,
  kKind = 1,
  kSession = 2,
  kWriter = 3,
  kSequence = 4,
  kSchema = 5,
  kTime = 6,
  kMonotonic = 7,
  kThread = 8,
  kEpisode = 9,
  kStep = 10,
  kGroup = 11,
  kSample = 12,
  kScores = 13,
  kStatuses = 14,
  kDurations = 15,
  kAction = 16,
  kObservation = 17,
  kForms = 18,
  kExplanations = 19,
  kReasons = 20,
  kMetadata = 21,
  kScoreMetadata = 22,
  kCalls = 23,
  kDuration = 35,  // 24 to 34 are of the ledger's own entries
  kOutcome = 36,
  kFields = 37,
  kFieldForms = 38,
  kSealed = 39,
};

// The extras kept by slot, in the order of their keys.
inline constexpr std::array<ExtraTag, 5> kSlotTags = {
    ExtraTag::explanation, ExtraTag::reason, ExtraTag::score_metadata, ExtraTag::calls, ExtraTag::field};
inline constexpr std::array<Key, 4> kSlotKeys = {kExplanations, kReasons, kScoreMetadata, kCalls};
inline constexpr std::size_t kFieldList = 4;  // of kSlotTags; an event's, with keys of their own

}  // namespace rubriscope::cbor
