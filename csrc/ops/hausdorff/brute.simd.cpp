#include "rubriscope/ops/hausdorff/brute.h"

#include "rubriscope/ops/hausdorff/shared_maximum.h"
#include "rubriscope/ops/hausdorff/vector.h"

namespace rubriscope::ops {
namespace RUBRISCOPE_ISA {

namespace {

constexpr int kRows = 4;                        ///< queries that share a load of targets
constexpr int kGroup = 32;                      ///< queries that share a tile of targets
constexpr std::int64_t kTileBytes = 256 << 10;  ///< of targets, to stay in the second-level cache

/// One query against every lane: the least squared distance and its block, and the least of any other block.
template <class Real>
struct Row {
  Vector<Real> best, second;
  Ints<Real> where;
};

/// The squared distances of kRows queries, `stride` apart (0: all the same one), to a block's targets.
template <class Real, int Rows>
inline void to_block(const Real* block, const Real* query, std::int64_t stride, std::int64_t dimensions,
                     Vector<Real>* sums) {
  Vector<Real> sum[Rows];
  for (int r = 0; r < Rows; ++r) sum[r] = Vector<Real>{};
  for (std::int64_t k = 0; k < dimensions; ++k) {
    const Vector<Real> targets = load(block + k * kWidth);
    for (int r = 0; r < Rows; ++r) {
      const Vector<Real> difference = targets - query[r * stride + k];
      sum[r] += difference * difference;
    }
  }
  for (int r = 0; r < Rows; ++r) sums[r] = sum[r];
}

/// As Exact in search.simd.cpp, over all blocks.
template <class Real>
PointPair exact(const BruteView<Real>& view, std::int64_t query, Rounding<Real> error, Real bound) {
  PointPair pair{__builtin_inf(), view.query_index[query], -1};
  const std::int64_t dimensions = view.dimensions;
  for (std::int64_t b = 0; b < view.block_count; ++b) {
    Vector<Real> d;
    to_block<Real, 1>(view.blocks + b * dimensions * kWidth, view.queries + query * dimensions, 0, dimensions,
                      &d);
    for (std::uint32_t bits = 0xffffu & ~less(spread(bound), d); bits != 0; bits &= bits - 1) {
      const std::int64_t target = view.target_index[b * kWidth + __builtin_ctz(bits)];
      const double squared =
          squared_distance(view.query_points + pair.query * dimensions,
                           view.target_points + target * dimensions, dimensions, view.scale);
      if (squared < pair.squared || (squared == pair.squared && target < pair.target)) {
        pair.squared = squared;
        pair.target = target;
        const Real limit = loosen(static_cast<Real>(squared), error);
        bound = limit < bound ? limit : bound;
      }
    }
    if (pair.squared == 0) break;  // targets come in the order of their indices
  }
  return pair;
}

/// Calls done(query, row) for each query whose row is complete; with `Each`, that is every one, otherwise
/// those without a neighbour nearer than the shared maximum.
template <class Real, bool Each, class Done>
inline void search(const BruteView<Real>& view, std::int64_t begin, std::int64_t end, Rounding<Real> error,
                   const std::uint64_t* shared, Done done) {
  const std::int64_t dimensions = view.dimensions;
  const std::int64_t block_bytes = dimensions * kWidth * static_cast<std::int64_t>(sizeof(Real));
  const std::int64_t tile = kTileBytes / block_bytes > 1 ? kTileBytes / block_bytes : 1;
  Row<Real> rows[kGroup];
  bool open[kGroup];
  for (std::int64_t group = begin; group < end; group += kGroup) {
    const int count = static_cast<int>(end - group < kGroup ? end - group : kGroup);
    for (int r = 0; r < kGroup; ++r) {
      rows[r].best = rows[r].second = spread(static_cast<Real>(__builtin_inf()));
      rows[r].where = Ints<Real>{} - 1;
      open[r] = r < count;
    }
    for (std::int64_t from = 0; from < view.block_count; from += tile) {
      const std::int64_t to = from + tile < view.block_count ? from + tile : view.block_count;
      const Vector<Real> floor = spread(Each ? Real(0) : tighten(read_maximum(shared), error));
      for (int r = 0; r < count; r += kRows) {
        const bool full = r + kRows <= count;
        for (std::int64_t b = from; b < to; ++b) {
          bool any = false;
          for (int i = 0; i < kRows; ++i) any |= open[r + i];
          if (!any) break;
          Vector<Real> d[kRows];
          const Real* const query = view.queries + (group + r) * dimensions;
          to_block<Real, kRows>(view.blocks + b * dimensions * kWidth, query, full ? dimensions : 0,
                                dimensions, d);
          if (!full) {
            for (int i = 1; r + i < count; ++i) {
              to_block<Real, 1>(view.blocks + b * dimensions * kWidth, query + i * dimensions, 0, dimensions,
                                d + i);
            }
          }
          for (int i = 0; i < kRows; ++i) {
            Row<Real>& row = rows[r + i];
            if constexpr (Each) {
              row.second = minimum(row.second, maximum(d[i], row.best));
              row.where = d[i] < row.best ? spread_number<Real>(b) : row.where;
            } else {
              open[r + i] = open[r + i] && less(d[i], floor) == 0;
            }
            row.best = minimum(d[i], row.best);
          }
        }
      }
    }
    for (int r = 0; r < count; ++r) {
      if (open[r]) done(group + r, rows[r]);
    }
  }
}

template <class Real>
void largest(const BruteView<Real>& view, std::int64_t begin, std::int64_t end, std::uint64_t* shared,
             PointPair* best) {
  const Rounding<Real> error = rounding<Real>(view.dimensions);
  search<Real, false>(view, begin, end, error, shared, [&](std::int64_t query, const Row<Real>& row) {
    const Real bound = loosen(lowest(row.best), error);
    if (static_cast<double>(bound) < best->squared) return;
    const PointPair pair = exact(view, query, error, bound);
    if (larger(pair, *best)) {
      *best = pair;
      raise_maximum(shared, pair.squared);
    }
  });
}

template <class Real>
void each(const BruteView<Real>& view, std::int64_t begin, std::int64_t end, double* squared,
          std::int64_t* nearest) {
  const Rounding<Real> error = rounding<Real>(view.dimensions);
  search<Real, true>(view, begin, end, error, nullptr, [&](std::int64_t query, const Row<Real>& row) {
    const Real bound = loosen(lowest(row.best), error);
    const std::uint32_t near = 0xffffu & ~less(spread(bound), row.best);
    const std::uint32_t more = 0xffffu & ~less(spread(bound), row.second);
    PointPair pair;
    if ((near & (near - 1)) == 0 && more == 0) {
      const int lane = __builtin_ctz(near);
      pair.query = view.query_index[query];
      pair.target = view.target_index[row.where[lane] * kWidth + lane];
      pair.squared =
          squared_distance(view.query_points + pair.query * view.dimensions,
                           view.target_points + pair.target * view.dimensions, view.dimensions, view.scale);
    } else {
      pair = exact(view, query, error, bound);
    }
    squared[pair.query] = pair.squared;
    nearest[pair.query] = pair.target;
  });
}

}  // namespace

#define RUBRISCOPE_DEFINE_BRUTE(Real)                                                                 \
  void brute_largest(const BruteView<Real>& view, std::int64_t begin, std::int64_t end,               \
                     std::uint64_t* shared, PointPair* best) {                                        \
    largest(view, begin, end, shared, best);                                                          \
  }                                                                                                   \
  void brute_each(const BruteView<Real>& view, std::int64_t begin, std::int64_t end, double* squared, \
                  std::int64_t* nearest) {                                                            \
    each(view, begin, end, squared, nearest);                                                         \
  }
RUBRISCOPE_DEFINE_BRUTE(float)
RUBRISCOPE_DEFINE_BRUTE(double)

}  // namespace RUBRISCOPE_ISA
}  // namespace rubriscope::ops
