// Figures over spans in flat memory: counts, means, 95th percentiles of a layer, the slowest spans.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace rubriscope {

/// Durations counted in buckets whose width is 1/64 of their power of two: quantiles within 1 %.
class DurationSketch {
 public:
  void add(std::uint64_t ns);
  /// The duration that `share` of those added do not exceed, ns; 0 when there are none.
  double quantile(double share) const;

 private:
  std::vector<std::uint64_t> counts_ = std::vector<std::uint64_t>(kBuckets);
  std::uint64_t count_{0};
  static constexpr std::size_t kBuckets = 64 * 60;
};

class TraceStats {
 public:
  struct OfLayer {
    std::uint64_t operations{};
    std::uint64_t errors{};
    std::uint64_t blocked{};
    double total_ms{};
    DurationSketch durations;
  };
  struct Slow {
    double duration_ms;
    std::string line;  ///< the whole event, JSON
  };

  explicit TraceStats(std::size_t slowest) : most_slow_(slowest) {}

  void add(std::string_view layer, std::string_view status, double duration_ms, std::string_view line);

  const std::map<std::string, OfLayer, std::less<>>& layers() const { return layers_; }
  /// The longest first.
  std::vector<Slow> slowest() const;

 private:
  std::size_t most_slow_;
  std::map<std::string, OfLayer, std::less<>> layers_;
  std::vector<Slow> slow_;  // a heap, the shortest first
};

}  // namespace rubriscope
