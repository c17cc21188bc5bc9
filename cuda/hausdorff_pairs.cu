// The search among all pairs: targets in tiles of shared memory, one or two queries a thread. For few points,
// where sorting would take longer, and for more than three dimensions.
#include "hausdorff_parts.cuh"
#include "rubriscope/ops/hausdorff/exact_scan.h"
#include "rubriscope/ops/hausdorff/nearest.h"
#include "warp.cuh"

namespace rubriscope::cuda {

namespace {

using ops::kNearestGroup;
using ops::larger;
using ops::loosen;
using ops::Nearest;
using ops::PointPair;
using ops::Rounding;

constexpr int kThreads = 256;
constexpr int kTile = 1024;  // targets in shared memory, up to three dimensions
constexpr int kColumns = 8;  // targets a thread looks at at once, more dimensions
constexpr int kDepth = 32;   // of their coordinates in shared memory
/// Queries from which two a thread still keep a large GPU busy: 132 multiprocessors, two blocks of 512 each.
constexpr std::int64_t kManyQueries = 1 << 17;

/// One direction of one item, and this block's share of its queries.
template <class Real>
struct Share {
  const Real* queries;
  const Real* targets;
  std::int64_t target_count, dimensions;
  std::int64_t begin, end;  // queries
  double scale;

  __device__ double squared(std::int64_t query, std::int64_t target) const {
    return ops::squared_distance(queries + query * dimensions, targets + target * dimensions, dimensions,
                                 scale);
  }
};

/// Up to three dimensions. Whether each query was given up: it has a neighbour below the largest known.
template <class Real, bool Max, int Queries>
__device__ void see_low(const Share<Real>& share, const unsigned long long* shared, Rounding<Real> error,
                        const bool (&mine)[Queries], Nearest<Real> (&nearest)[Queries],
                        bool (&given_up)[Queries]) {
  __shared__ __align__(16) Real tile[3][kTile];
  const Real scale = static_cast<Real>(share.scale);
  Real q[Queries][3];
  for (int i = 0; i < Queries; ++i) {
    const std::int64_t query = share.begin + i * kThreads + threadIdx.x;
    for (int k = 0; k < 3; ++k) {
      const bool there = mine[i] && k < share.dimensions;
      q[i][k] = there ? share.queries[query * share.dimensions + k] * scale : Real(0);
    }
  }
  for (std::int64_t from = 0; from < share.target_count; from += kTile) {
    const std::int64_t left = share.target_count - from;
    const int count = static_cast<int>(left < kTile ? left : kTile);
    const int filled = (count + kNearestGroup - 1) / kNearestGroup * kNearestGroup;
    __syncthreads();
    for (int t = threadIdx.x; t < filled; t += kThreads) {
      for (int k = 0; k < 3; ++k) {
        const bool there = t < count && k < share.dimensions;
        tile[k][t] = there ? share.targets[(from + t) * share.dimensions + k] * scale : Real(0);
      }
      if (t >= count) tile[0][t] = static_cast<Real>(INFINITY);
    }
    const Real floor = Max ? ops::tighten(known_largest(shared), error) : Real(0);
    __syncthreads();
    bool done = true;
    for (int i = 0; i < Queries; ++i) done = done && (!mine[i] || given_up[i]);
    if (!done) see_tile(nearest, q, tile, count, from);
    if (Max) {
      done = true;
      for (int i = 0; i < Queries; ++i) {
        given_up[i] = given_up[i] || nearest[i].best < floor;
        done = done && (!mine[i] || given_up[i]);
      }
      if (__syncthreads_and(done)) return;
    }
  }
}

/// Any number of dimensions.
template <class Real, bool Max>
__device__ void see_high(const Share<Real>& share, const unsigned long long* shared, Rounding<Real> error,
                         bool mine, Nearest<Real>& nearest, bool& given_up) {
  __shared__ Real tile[kColumns][kDepth];
  const std::int64_t dimensions = share.dimensions;
  const Real scale = static_cast<Real>(share.scale);
  const Real* const point = share.queries + (mine ? share.begin + threadIdx.x : 0) * dimensions;
  for (std::int64_t from = 0; from < share.target_count; from += kColumns) {
    const std::int64_t left = share.target_count - from;
    const int count = static_cast<int>(left < kColumns ? left : kColumns);
    const bool done = !mine || given_up;
    Real sum[kColumns];
    for (int t = 0; t < kColumns; ++t) sum[t] = 0;
    for (std::int64_t k0 = 0; k0 < dimensions; k0 += kDepth) {
      const int depth = static_cast<int>(dimensions - k0 < kDepth ? dimensions - k0 : kDepth);
      __syncthreads();
      for (int at = threadIdx.x; at < kColumns * kDepth; at += kThreads) {
        const int t = at / kDepth, k = at % kDepth;
        const bool there = t < count && k < depth;
        tile[t][k] = there ? share.targets[(from + t) * dimensions + k0 + k] * scale : Real(0);
      }
      __syncthreads();
      for (int k = 0; k < depth && !done; ++k) {
        const Real q = point[k0 + k] * scale;
#pragma unroll
        for (int t = 0; t < kColumns; ++t) {
          const Real difference = q - tile[t][k];
          sum[t] += difference * difference;
        }
      }
    }
    for (int t = 0; t < count && !done; ++t) nearest.see(sum[t], from + t);
    if (Max && from / kColumns % 16 == 15) {
      given_up = given_up || nearest.best < ops::tighten(known_largest(shared), error);
      if (__syncthreads_and(!mine || given_up)) return;
    }
  }
}

/// The largest of the block's pairs, for thread 0.
__device__ PointPair largest_of_block(const PointPair& mine) {
  __shared__ PointPair all[kThreads];
  __syncthreads();
  all[threadIdx.x] = mine;
  for (int half = kThreads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.x < half && larger(all[threadIdx.x + half], all[threadIdx.x])) {
      all[threadIdx.x] = all[threadIdx.x + half];
    }
  }
  return all[0];
}

/// A block for kThreads * Queries of one side's points: the distance of each, or for max the largest of them.
/// For max, a query that has a neighbour strictly nearer than the largest distance known is given up.
template <class Real, bool Max, int Queries, bool Low>
__global__ void __launch_bounds__(kThreads) search(Problem<Real> problem, int side) {
  const ops::PointBatch<Real>& sets = problem.sets;
  const std::int64_t groups = problem.groups[side], item = blockIdx.x / groups, group = blockIdx.x % groups;
  const std::int64_t segment = side * sets.batch + item, other = sets.other(segment);
  const std::int64_t begin = group * kThreads * Queries, length = sets.length(segment);
  PointPair* const result = Max ? problem.pairs[side] + item * groups + group : nullptr;
  if (begin >= length || !sets.searches(segment)) {  // the whole block
    if (Max && threadIdx.x == 0) *result = PointPair{};
    return;
  }
  const std::int64_t after = begin + kThreads * Queries;
  const Share<Real> share{sets.points(segment),
                          sets.points(other),
                          sets.length(other),
                          sets.dimensions,
                          begin,
                          after < length ? after : length,
                          sets.scale(item)};
  const Rounding<Real> error = ops::rounding<Real>(share.dimensions);
  const Real infinity = static_cast<Real>(INFINITY);
  unsigned long long* const shared = problem.shared + item;

  bool mine[Queries], given_up[Queries];
  Nearest<Real> nearest[Queries];
  for (int i = 0; i < Queries; ++i) {
    const std::int64_t query = begin + i * kThreads + threadIdx.x;
    mine[i] = query < share.end && sets.is_finite(share.queries + query * share.dimensions);
    given_up[i] = false;
    nearest[i] = Nearest<Real>{infinity, infinity, 0};
  }
  if constexpr (Low) {
    see_low<Real, Max, Queries>(share, shared, error, mine, nearest, given_up);
  } else {
    see_high<Real, Max>(share, shared, error, mine[0], nearest[0], given_up[0]);
  }

  // Decided in Real where nothing else comes near; what is left is decided by warps, in any order.
  __shared__ int open[kThreads * Queries];
  __shared__ int open_count;
  if (threadIdx.x == 0) open_count = 0;
  __syncthreads();
  PointPair farthest;
  const Real floor = Max ? ops::tighten(known_largest(shared), error) : Real(0);
  for (int i = 0; i < Queries; ++i) {
    if (!mine[i] || given_up[i] || (Max && nearest[i].best < floor)) continue;
    const std::int64_t query = begin + i * kThreads + threadIdx.x;
    if (!(loosen(nearest[i].best, error) < nearest[i].second)) {
      open[atomicAdd(&open_count, 1)] = i * kThreads + static_cast<int>(threadIdx.x);
      continue;
    }
    const PointPair pair{share.squared(query, nearest[i].where), query, nearest[i].where};
    if constexpr (Max) {
      if (larger(pair, farthest)) farthest = pair;
    } else {
      problem.squared_of(segment)[query] = pair.squared;
      if (problem.near_of(segment) != nullptr) problem.near_of(segment)[query] = pair.target;
    }
  }
  __syncthreads();
  for (int at = static_cast<int>(threadIdx.x) / 32; at < open_count; at += kThreads / 32) {
    const std::int64_t query = begin + open[at];
    const PointPair pair = ops::exact_scan(Warp{}, share.queries + query * share.dimensions, query,
                                           share.targets, share.target_count, share.dimensions, share.scale);
    if (Warp::lane() != 0) continue;
    if constexpr (Max) {
      if (larger(pair, farthest)) farthest = pair;
    } else {
      problem.squared_of(segment)[pair.query] = pair.squared;
      if (problem.near_of(segment) != nullptr) problem.near_of(segment)[pair.query] = pair.target;
    }
  }
  if constexpr (Max) {
    const PointPair all = largest_of_block(farthest);
    if (threadIdx.x != 0) return;
    *result = all;
    if (all.squared >= 0) raise_largest(shared, all.squared);
  }
}

/// How many queries a thread takes.
template <class Real>
int queries_each(const Problem<Real>& problem, int side) {
  const std::int64_t rows = side == 0 ? problem.sets.n : problem.sets.m;
  return problem.sets.dimensions <= 3 && problem.sets.batch * rows >= kManyQueries ? 2 : 1;
}

template <class Real, bool Max>
void launch(const Problem<Real>& problem, int side, cudaStream_t stream) {
  const auto blocks = static_cast<unsigned int>(problem.sets.batch * problem.groups[side]);
  if (problem.sets.dimensions > 3) {
    search<Real, Max, 1, false><<<blocks, kThreads, 0, stream>>>(problem, side);
  } else if (queries_each(problem, side) == 2) {
    search<Real, Max, 2, true><<<blocks, kThreads, 0, stream>>>(problem, side);
  } else {
    search<Real, Max, 1, true><<<blocks, kThreads, 0, stream>>>(problem, side);
  }
}

}  // namespace

template <class Real>
void count_groups(Problem<Real>& problem) {
  for (int side = 0; side < 2; ++side) {
    const std::int64_t rows = side == 0 ? problem.sets.n : problem.sets.m;
    const std::int64_t group = kThreads * queries_each(problem, side);
    problem.groups[side] = (rows + group - 1) / group;
  }
}

template <class Real>
void search_pairs(const Problem<Real>& problem, cudaStream_t stream) {
  for (int side = 0; side < problem.sides; ++side) {
    if (problem.pairs[side] != nullptr) {
      launch<Real, true>(problem, side, stream);
    } else {
      launch<Real, false>(problem, side, stream);
    }
  }
}

template void count_groups(Problem<float>&);
template void count_groups(Problem<double>&);
template void search_pairs(const Problem<float>&, cudaStream_t);
template void search_pairs(const Problem<double>&, cudaStream_t);

}  // namespace rubriscope::cuda
