#include "rubriscope/ops/stats/stats.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <vector>

namespace rubriscope::ops {

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

std::int64_t size_of(StatsType type) {
  return type == StatsType::float64 ? 8 : type == StatsType::float32 ? 4 : 2;
}

constexpr StatsPiece kNothing{{0, 0, 0}, kInfinity, -kInfinity, 0, 0};

}  // namespace

void tensor_stats(const void* data, StatsType type, std::int64_t count, double moments[4],
                  std::int64_t counts[4 + kMagnitudeBins], const Parallel& parallel) {
  struct Worker {
    std::array<std::int64_t, 256> histogram{};
    std::array<std::uint8_t, kStatsChunk> exponents;
    int window = 0;
    std::int64_t zeros = 0;
  };
  std::vector<Worker> workers(static_cast<std::size_t>(std::min<std::int64_t>(
      std::max(parallel.threads(), 1), std::max<std::int64_t>(1, (count + kStatsPiece - 1) / kStatsPiece))));
  std::vector<StatsPiece> pieces(static_cast<std::size_t>((count + kStatsPiece - 1) / kStatsPiece), kNothing);
  const std::int64_t bytes = size_of(type);
  for_pieces(parallel, count, kStatsPiece, [&](std::int64_t begin, std::int64_t end, int worker) {
    Worker& mine = workers[static_cast<std::size_t>(worker)];
    StatsPiece& piece = pieces[static_cast<std::size_t>(begin / kStatsPiece)];
    const auto take = [&](std::int64_t from, std::int64_t to, double shift) {
      StatsPiece chunk{};
      RUBRISCOPE_CALL_ISA(stats_chunk, static_cast<const char*>(data) + from * bytes, type, to - from, shift,
                          chunk, mine.exponents.data());
      return chunk;
    };
    // Differences are taken to a mean: of the first elements, then of those before. Where it is small beside
    // the spread, 0 does as well.
    const auto shift_for = [](const Moments& before) {
      const double mean = before.mean;
      if (!std::isfinite(mean) || mean * mean * before.count < 16 * before.squares) return 0.0;
      return mean;
    };
    double shift = shift_for(take(begin, std::min(begin + 64, end), 0).moments);
    for (std::int64_t from = begin; from < end; from += kStatsChunk) {
      const std::int64_t to = std::min(from + kStatsChunk, end);
      piece = combined(piece, take(from, to, shift));
      shift = shift_for(piece.moments);
      const std::int64_t smallest = RUBRISCOPE_CALL_ISA(count_bytes, mine.exponents.data(), to - from,
                                                        mine.histogram.data(), mine.window);
      if (smallest > 0) {
        mine.zeros +=
            RUBRISCOPE_CALL_ISA(count_zeros, static_cast<const char*>(data) + from * bytes, type, to - from);
      }
    }
  });
  StatsPiece all = kNothing;
  for (const StatsPiece& piece : pieces) all = combined(all, piece);
  std::int64_t zeros = 0;
  for (const Worker& worker : workers) zeros += worker.zeros;
  moments[0] = all.moments.count > 0 ? all.moments.mean : kNaN;
  moments[1] = all.moments.count > 1 ? all.moments.squares / (all.moments.count - 1) : kNaN;
  moments[2] = all.moments.count > 0 ? all.least : kNaN;
  moments[3] = all.moments.count > 0 ? all.greatest : kNaN;
  std::fill_n(counts, 4 + kMagnitudeBins, 0);
  counts[0] = count;
  counts[1] = all.nan;
  counts[2] = all.inf;
  counts[3] = zeros;
  for (const Worker& worker : workers) {
    for (int byte = 0; byte < 255; ++byte) {
      counts[4 + bin_of_exponent_byte(byte)] += worker.histogram[static_cast<std::size_t>(byte)];
    }
  }
  counts[4] -= zeros;
}

}  // namespace rubriscope::ops
