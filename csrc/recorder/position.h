// Where a record stands in its run: episode, step, group and sample. The recorder holds the defaults; the
// Python layer overrides them per context (contextvars), C++ callers per call.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <string_view>

#include "rubriscope/core/record.h"

namespace rubriscope {

/// A position whose step is taken from a counter unless it was set.
class Position {
 public:
  static constexpr std::int64_t kAutomatic = kNoGroup;

  explicit Position(std::string episode = "0") : episode_(std::move(episode)) {}

  const std::string& episode() const { return episode_; }

  /// The step of the next record: the one set, or the counter's next value.
  std::int64_t take_step() {
    const std::int64_t set = step.load(std::memory_order_relaxed);
    return set != kAutomatic ? set : next_step.fetch_add(1, std::memory_order_relaxed);
  }

  std::atomic<std::int64_t> step{kAutomatic};
  std::atomic<std::int64_t> next_step{0};
  std::atomic<std::int64_t> group{kNoGroup};
  std::atomic<std::int32_t> sample{kNoSample};

 private:
  const std::string episode_;
};

/// Where one record stands. Borrows the episode's name.
struct RecordPosition {
  std::string_view episode;
  std::int64_t step;
  std::int64_t group;
  std::int32_t sample;

  static RecordPosition take(Position& position) {
    return {position.episode(), position.take_step(), position.group.load(std::memory_order_relaxed),
            position.sample.load(std::memory_order_relaxed)};
  }
};

}  // namespace rubriscope
