// The last observations of a process, in memory: a ring that is written over. The binding's GIL guards it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "rubriscope/core/record.h"
#include "rubriscope/trace/sight_point.h"

namespace rubriscope {

struct SightObservation {
  const SightPoint* point{nullptr};
  std::uint64_t end_tick{0};
  std::uint64_t duration_ns{0};
  Outcome outcome{Outcome::success};
  std::vector<double> values;  ///< one a metric, NaN where there is none; may be shorter than the metrics
  std::string trace_id;        ///< empty: it stood in no trace
  std::string parent_id;
};

class SightWindow {
 public:
  static constexpr std::size_t kCapacity = 10'000;

  /// Keeps one observation in the place of the oldest. The point must outlive the process's window.
  void push(const SightPoint& point, std::uint64_t end_tick, std::uint64_t duration_ns, Outcome outcome,
            std::span<const double> values, std::string_view trace_id, std::string_view parent_id) {
    if (ring_.size() < kCapacity) ring_.emplace_back();
    SightObservation& one = ring_[next_];
    next_ = next_ + 1 == kCapacity ? 0 : next_ + 1;
    one.point = &point;
    one.end_tick = end_tick;
    one.duration_ns = duration_ns;
    one.outcome = outcome;
    one.values.assign(values.begin(), values.end());
    one.trace_id = trace_id;
    one.parent_id = parent_id;
  }

  std::size_t size() const { return ring_.size(); }

  /// The i-th, the oldest first.
  const SightObservation& at(std::size_t i) const {
    return ring_.size() < kCapacity ? ring_[i] : ring_[(next_ + i) % kCapacity];
  }

  void clear() {
    ring_.clear();
    next_ = 0;
  }

 private:
  std::vector<SightObservation> ring_;
  std::size_t next_{0};
};

}  // namespace rubriscope
