// Quantiles of durations as they stream by: a histogram whose buckets grow with the value, 64 in each octave
// (as HdrHistogram's, G. Tene). A quantile is the middle of its bucket, at most 1/128 (0.8 %) from a value of
// that rank; below 128 ns it is exact. Adding is a shift and an increment.
#pragma once

#include <array>
#include <cstdint>
#include <memory>

namespace rubriscope {

/// Not synchronised: the binding's callers hold the GIL.
class SightSketch {
 public:
  /// Counts one duration in nanoseconds.
  void add(std::uint64_t ns) {
    const int octave = octave_of(ns);
    auto& block = blocks_[static_cast<std::size_t>(octave)];
    if (block == nullptr) block = std::make_unique<Block>();
    ++(*block)[static_cast<std::size_t>((ns >> shift_of(octave)) & (kWidth - 1))];
    ++count_;
  }

  std::uint64_t count() const { return count_; }

  /// The value of rank ceil(q · count), counted from 1, in nanoseconds; 0 when nothing was added. q in (0,
  /// 1].
  double quantile(double q) const;

 private:
  static constexpr std::uint64_t kWidth = 64;
  using Block = std::array<std::uint64_t, kWidth>;

  // Octave 0 holds 0…63, octave k > 0 holds [64 · 2^(k−1), 64 · 2^k) in steps of 2^(k−1).
  static int octave_of(std::uint64_t ns) { return ns < kWidth ? 0 : 58 - __builtin_clzll(ns); }
  static int shift_of(int octave) { return octave > 1 ? octave - 1 : 0; }

  std::array<std::unique_ptr<Block>, 59> blocks_;  // made when an octave is first met
  std::uint64_t count_{0};
};

}  // namespace rubriscope
