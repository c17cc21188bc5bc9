#include "rubriscope/trace/trace_stats.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace rubriscope {

namespace {

bool longer(const TraceStats::Slow& a, const TraceStats::Slow& b) { return a.duration_ms > b.duration_ms; }

}  // namespace

void DurationSketch::add(std::uint64_t ns) {
  // The first 64 buckets are one nanosecond each; bucket 64·p + i then begins at (64 + i)·2^(p - 1).
  std::size_t bucket = ns;
  if (ns >= 64) {
    const int power = std::bit_width(ns) - 6;
    bucket = static_cast<std::size_t>(power) * 64 + ((ns >> (power - 1)) & 63);
  }
  ++counts_[std::min(bucket, kBuckets - 1)];
  ++count_;
}

double DurationSketch::quantile(double share) const {
  if (count_ == 0) return 0;
  const auto rank = static_cast<std::uint64_t>(std::ceil(share * static_cast<double>(count_)));
  std::uint64_t seen = 0;
  std::size_t bucket = 0;
  while (bucket + 1 < kBuckets && (seen += counts_[bucket]) < std::max<std::uint64_t>(rank, 1)) ++bucket;
  if (bucket < 64) return static_cast<double>(bucket);
  const double width = std::ldexp(1.0, static_cast<int>(bucket / 64) - 1);
  return (64 + static_cast<double>(bucket % 64) + 0.5) * width;
}

void TraceStats::add(std::string_view layer, std::string_view status, double duration_ms,
                     std::string_view line) {
  auto found = layers_.find(layer);
  if (found == layers_.end()) found = layers_.emplace(std::string(layer), OfLayer{}).first;
  OfLayer& of_layer = found->second;
  ++of_layer.operations;
  if (status == "error") ++of_layer.errors;
  if (status == "blocked") ++of_layer.blocked;
  of_layer.total_ms += duration_ms;
  of_layer.durations.add(static_cast<std::uint64_t>(std::clamp(duration_ms * 1e6, 0.0, 9e18)));
  if (slow_.size() == most_slow_) {
    if (most_slow_ == 0 || duration_ms <= slow_.front().duration_ms) return;
    std::pop_heap(slow_.begin(), slow_.end(), longer);
    slow_.pop_back();
  }
  slow_.push_back({duration_ms, std::string(line)});
  std::push_heap(slow_.begin(), slow_.end(), longer);
}

std::vector<TraceStats::Slow> TraceStats::slowest() const {
  std::vector<Slow> sorted = slow_;
  std::stable_sort(sorted.begin(), sorted.end(), longer);
  return sorted;
}

}  // namespace rubriscope
