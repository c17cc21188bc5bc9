// Count, moments, extremes, special values and log-magnitudes of an array in one pass.
#pragma once

#include <cstdint>

#include "rubriscope/ops/isa.h"
#include "rubriscope/ops/parallel.h"
#include "rubriscope/ops/stats/moments.h"

namespace rubriscope::ops {

enum class StatsType { float32, float64, float16, bfloat16 };

/// What a run of elements adds: moments and extremes of the finite ones, counts of the others.
struct StatsPiece {
  Moments moments;
  double least, greatest;  ///< inf and −inf where nothing is finite
  std::int64_t nan, inf;
};

constexpr std::int64_t kStatsChunk = 8192;    ///< elements a call of the vector code takes at most
constexpr std::int64_t kStatsPiece = 131072;  ///< elements a thread takes at a time

/// moments: mean, variance (n − 1), least, greatest of the finite elements, NaN where there are too few.
/// counts: elements, NaN, Inf, zeros, then kMagnitudeBins counts (moments.h).
void tensor_stats(const void* data, StatsType type, std::int64_t count, double moments[4],
                  std::int64_t counts[4 + kMagnitudeBins], const Parallel& parallel);

inline StatsPiece combined(const StatsPiece& a, const StatsPiece& b) {
  return {combined(a.moments, b.moments), a.least < b.least ? a.least : b.least,
          a.greatest > b.greatest ? a.greatest : b.greatest, a.nan + b.nan, a.inf + b.inf};
}

RUBRISCOPE_DECLARE_ISA(
    /// Statistics of at most kStatsChunk elements; `shift` is near their mean. `exponents` gets a byte an
    /// element (bin_of_exponent_byte in moments.h), in any order.
    void stats_chunk(const void* data, StatsType type, std::int64_t count, double shift, StatsPiece& out,
                     std::uint8_t* exponents);

    /// How many elements are 0 or −0.
    std::int64_t count_zeros(const void* data, StatsType type, std::int64_t count);

    /// Adds how often each byte occurs among at most kStatsChunk; returns how often 0 does. `window` is where
    /// the common bytes were in the chunk before: it is read and updated, and decides the speed only.
    std::int64_t count_bytes(const std::uint8_t* bytes, std::int64_t count, std::int64_t histogram[256],
                             int& window);)

}  // namespace rubriscope::ops
