// From the pairs or distances that a search left to one number an item, and each distance's weight in it.
// Sums are taken in pieces of a fixed length and put together by a fixed tree; counts and minima are of
// integers, so nothing depends on the order of blocks. As csrc/ops/hausdorff/reduce.cpp.
#include "hausdorff_parts.cuh"
#include "rubriscope/ops/hausdorff/combine.h"
#include "rubriscope/ops/hausdorff/rank.h"

namespace rubriscope::cuda {

namespace {

using ops::kDigits;
using ops::PointPair;
using ops::PointReduction;
using ops::Rank;

constexpr int kThreads = 256;

/// Adds up over the block in pairs; for thread 0.
__device__ double block_sum(double mine) {
  __shared__ double all[kThreads];
  __syncthreads();
  all[threadIdx.x] = mine;
  for (int half = kThreads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.x < half) all[threadIdx.x] += all[threadIdx.x + half];
  }
  return all[0];
}

/// The largest of one side's pairs, for thread 0.
__device__ PointPair block_largest(const PointPair* pairs, std::int64_t count) {
  __shared__ PointPair all[kThreads];
  PointPair best;
  for (std::int64_t i = threadIdx.x; i < count; i += kThreads) {
    if (pairs[i].squared >= 0 && ops::larger(pairs[i], best)) best = pairs[i];
  }
  __syncthreads();
  all[threadIdx.x] = best;
  for (int half = kThreads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.x < half && ops::larger(all[threadIdx.x + half], all[threadIdx.x])) {
      all[threadIdx.x] = all[threadIdx.x + half];
    }
  }
  return all[0];
}

/// A block an item.
template <class Real>
__global__ void __launch_bounds__(kThreads) decide_largest(Problem<Real> problem, RubriscopeHausdorff args) {
  const ops::PointBatch<Real>& sets = problem.sets;
  const std::int64_t b = blockIdx.x;
  PointPair largest[2];
  for (int side = 0; side < problem.sides; ++side) {
    if (!sets.searches(side * sets.batch + b)) continue;
    largest[side] = block_largest(problem.pairs[side] + b * problem.groups[side], problem.groups[side]);
  }
  if (threadIdx.x != 0) return;
  const ops::Farthest out = ops::settle_largest(sets.decision(b), sets.info[b], sets.info[sets.batch + b],
                                                problem.sides == 2, largest[0], largest[1], sets.scale(b));
  static_cast<Real*>(args.value)[b] = static_cast<Real>(out.distance);
  args.index_x[b] = out.x;
  args.index_y[b] = out.y;
}

/// The part of a segment that a block takes.
struct Part {
  std::int64_t segment, begin, end;
  bool counts;  ///< whether the segment's distances are wanted
};

template <class Real>
__device__ Part part_of_block(const Problem<Real>& problem) {
  const ops::Segments pieces = ops::in_pieces(problem.sets, kPiece);
  Part out;
  out.segment = pieces.segment_of_row(blockIdx.x);
  out.begin = (blockIdx.x - pieces.origin(out.segment)) * kPiece;
  const std::int64_t length = problem.sets.length(out.segment);
  out.end = out.begin + kPiece < length ? out.begin + kPiece : length;
  out.counts =
      problem.is_searched(out.segment) && !problem.sets.decision(problem.sets.item(out.segment)).made;
  return out;
}

// ---- means

template <class Real>
__global__ void __launch_bounds__(kThreads) sum_parts(Problem<Real> problem, bool squares, double* sums) {
  const Part part = part_of_block(problem);
  double sum = 0;
  if (part.counts) {
    const double* const squared = problem.squared_of(part.segment);
    const double scale = problem.sets.scale(problem.sets.item(part.segment));
    for (std::int64_t i = part.begin + threadIdx.x; i < part.end; i += kThreads) {
      const double distance = sqrt(squared[i]) / scale;
      sum += squares ? distance * distance : distance;
    }
  }
  sum = block_sum(sum);
  if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

// ---- percentiles

/// A thread a segment.
template <class Real>
__global__ void start_ranks(Problem<Real> problem, double percent, Rank* ranks, unsigned int* counts) {
  const std::int64_t segment = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (segment >= problem.sets.segments()) return;
  ranks[segment] = ops::start_rank(percent, problem.sets.length(segment));
  for (int d = 0; d < kDigits; ++d) counts[segment * kDigits + d] = 0;
}

/// Counts the next digit of the numbers that begin like the one wanted.
template <class Real>
__global__ void __launch_bounds__(kThreads)
    count_digits(Problem<Real> problem, int shift, const Rank* ranks, unsigned int* counts) {
  __shared__ unsigned int mine[kDigits];
  const Part part = part_of_block(problem);
  if (!part.counts) return;  // the whole block
  for (int d = threadIdx.x; d < kDigits; d += kThreads) mine[d] = 0;
  __syncthreads();
  const double* const squared = problem.squared_of(part.segment);
  const Rank rank = ranks[part.segment];
  for (std::int64_t i = part.begin + threadIdx.x; i < part.end; i += kThreads) {
    const unsigned long long bits = ops::bits_of(squared[i]);
    if (rank.begins(bits, shift)) atomicAdd(&mine[Rank::digit(bits, shift)], 1u);
  }
  __syncthreads();
  for (int d = threadIdx.x; d < kDigits; d += kThreads) {
    if (mine[d] != 0) atomicAdd(&counts[part.segment * kDigits + d], mine[d]);
  }
}

/// A block a segment: the digit in which the place lies; the counts are cleared for the next one.
template <class Real>
__global__ void __launch_bounds__(kDigits)
    pick_digit(Problem<Real> problem, int shift, Rank* ranks, unsigned int* counts) {
  __shared__ unsigned int all[kDigits];
  const std::int64_t segment = blockIdx.x;
  all[threadIdx.x] = counts[segment * kDigits + threadIdx.x];
  counts[segment * kDigits + threadIdx.x] = 0;
  __syncthreads();
  if (threadIdx.x != 0 || !problem.is_searched(segment) ||
      problem.sets.decision(problem.sets.item(segment)).made) {
    return;
  }
  ranks[segment].pick(all, shift);
}

/// The least number above the lower statistic.
template <class Real>
__global__ void __launch_bounds__(kThreads) find_next(Problem<Real> problem, Rank* ranks) {
  const Part part = part_of_block(problem);
  if (!part.counts) return;
  const double* const squared = problem.squared_of(part.segment);
  const unsigned long long low = ranks[part.segment].prefix;
  unsigned long long least = ~0ull;
  for (std::int64_t i = part.begin + threadIdx.x; i < part.end; i += kThreads) {
    const unsigned long long bits = ops::bits_of(squared[i]);
    if (bits > low && bits < least) least = bits;
  }
  if (least != ~0ull) atomicMin(&ranks[part.segment].next, least);
}

/// Where the two statistics first occur.
template <class Real>
__global__ void __launch_bounds__(kThreads) find_first(Problem<Real> problem, Rank* ranks) {
  const Part part = part_of_block(problem);
  if (!part.counts) return;
  const double* const squared = problem.squared_of(part.segment);
  Rank& rank = ranks[part.segment];
  const double low = rank.low(), high = rank.high();
  unsigned long long at_low = ~0ull, at_high = ~0ull;
  for (std::int64_t i = part.end - 1 - threadIdx.x; i >= part.begin; i -= kThreads) {
    if (squared[i] == low) at_low = static_cast<unsigned long long>(i);
    if (squared[i] == high) at_high = static_cast<unsigned long long>(i);
  }
  if (at_low != ~0ull) atomicMin(&rank.first_low, at_low);
  if (at_high != ~0ull) atomicMin(&rank.first_high, at_high);
}

// ---- both

/// A block an item: the value, and by what each side's weights are to be multiplied (0: they are all 0).
template <class Real>
__global__ void __launch_bounds__(kThreads) combine(Problem<Real> problem, RubriscopeHausdorff args,
                                                    const double* sums, const Rank* ranks, double* factors) {
  const ops::PointBatch<Real>& sets = problem.sets;
  const ops::Segments pieces = ops::in_pieces(sets, kPiece);
  const std::int64_t b = blockIdx.x;
  const ops::Decision decision = sets.decision(b);
  const auto reduction = static_cast<PointReduction>(args.reduction);
  ops::Combined all{decision.value, {0, 0}};
  if (!decision.made) {
    const double scale = sets.scale(b);
    double values[2] = {0, 0};
    for (int side = 0; side < problem.sides; ++side) {
      const std::int64_t segment = side * sets.batch + b;
      if (reduction == PointReduction::percentile) {
        const Rank& rank = ranks[segment];
        values[side] = ops::between(sqrt(rank.low()) / scale, sqrt(rank.high()) / scale, rank.fraction);
      } else {
        double sum = 0;
        for (std::int64_t p = threadIdx.x; p < pieces.rows(segment); p += kThreads) {
          sum += sums[pieces.origin(segment) + p];
        }
        values[side] = block_sum(sum) / static_cast<double>(sets.length(segment));
      }
    }
    // Thread 0 alone has a block's sum; it alone goes on.
    all = ops::combine(reduction, problem.sides, values);
  }
  if (threadIdx.x != 0) return;
  static_cast<Real*>(args.value)[b] = static_cast<Real>(all.value);
  factors[2 * b] = all.factor[0];
  factors[2 * b + 1] = all.factor[1];
}

/// A thread a row.
template <class Real>
__global__ void weigh(Problem<Real> problem, RubriscopeHausdorff args, const Rank* ranks,
                      const double* factors) {
  const ops::PointBatch<Real>& sets = problem.sets;
  const std::int64_t row = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (row >= sets.all_rows()) return;
  const std::int64_t segment = sets.segment_of_row(row), i = row - sets.origin(segment);
  const int side = sets.is_y(segment) ? 1 : 0;
  const std::int64_t length = sets.length(segment);
  const double factor = factors[2 * sets.item(segment) + side];
  double weight = 0;
  if (factor != 0 && i < length) {
    if (static_cast<PointReduction>(args.reduction) == PointReduction::percentile) {
      const Rank& rank = ranks[segment];
      if (static_cast<unsigned long long>(i) == rank.first_low) weight += 1 - rank.fraction;
      if (static_cast<unsigned long long>(i) == rank.first_high) weight += rank.fraction;
    } else {
      weight = factor / static_cast<double>(length);
    }
  }
  double* const weights = side == 0 ? args.weight_x : args.weight_y;
  weights[sets.item(segment) * sets.rows(segment) + i] = weight;
}

template <class Real>
unsigned int blocks_of_pieces(const Problem<Real>& problem) {
  return static_cast<unsigned int>(ops::in_pieces(problem.sets, kPiece).all_rows());
}

template <class Real>
void find_ranks(const Problem<Real>& problem, const ReduceScratch& scratch, const RubriscopeHausdorff& args,
                cudaStream_t stream) {
  const std::int64_t segments = problem.sets.segments();
  const unsigned int blocks = blocks_of_pieces(problem);
  start_ranks<Real><<<blocks_for(segments, kThreads), kThreads, 0, stream>>>(problem, args.percentile,
                                                                             scratch.ranks, scratch.counts);
  if (blocks == 0) return;
  for (int shift = ops::kFirstShift; shift >= 0; shift -= 8) {
    count_digits<Real><<<blocks, kThreads, 0, stream>>>(problem, shift, scratch.ranks, scratch.counts);
    pick_digit<Real><<<static_cast<unsigned int>(segments), kDigits, 0, stream>>>(
        problem, shift, scratch.ranks, scratch.counts);
  }
  find_next<Real><<<blocks, kThreads, 0, stream>>>(problem, scratch.ranks);
  if (args.weight_x != nullptr) find_first<Real><<<blocks, kThreads, 0, stream>>>(problem, scratch.ranks);
}

}  // namespace

template <class Real>
void take_reduce_scratch(Carver& carver, const Problem<Real>& problem, ReduceScratch& scratch) {
  scratch.sums = carver.take<double>(ops::in_pieces(problem.sets, kPiece).all_rows());
  scratch.ranks = carver.take<Rank>(problem.sets.segments());
  scratch.counts = carver.take<unsigned int>(problem.sets.segments() * kDigits);
  scratch.factors = carver.take<double>(2 * problem.sets.batch);
}

template <class Real>
void reduce_largest(const Problem<Real>& problem, const RubriscopeHausdorff& args, cudaStream_t stream) {
  decide_largest<Real><<<static_cast<unsigned int>(problem.sets.batch), kThreads, 0, stream>>>(problem, args);
}

template <class Real>
void reduce_each(const Problem<Real>& problem, const ReduceScratch& scratch, const RubriscopeHausdorff& args,
                 cudaStream_t stream) {
  const unsigned int blocks = blocks_of_pieces(problem);
  if (static_cast<PointReduction>(args.reduction) == PointReduction::percentile) {
    find_ranks(problem, scratch, args, stream);
  } else if (blocks > 0) {
    sum_parts<Real><<<blocks, kThreads, 0, stream>>>(
        problem, static_cast<PointReduction>(args.reduction) == PointReduction::chamfer_squared,
        scratch.sums);
  }
  combine<Real><<<static_cast<unsigned int>(problem.sets.batch), kThreads, 0, stream>>>(
      problem, args, scratch.sums, scratch.ranks, scratch.factors);
  if (args.weight_x == nullptr || problem.sets.all_rows() == 0) return;
  weigh<Real><<<blocks_for(problem.sets.all_rows(), kThreads), kThreads, 0, stream>>>(
      problem, args, scratch.ranks, scratch.factors);
}

#define RUBRISCOPE_INSTANTIATE(Real)                                                                \
  template void take_reduce_scratch(Carver&, const Problem<Real>&, ReduceScratch&);                 \
  template void reduce_largest(const Problem<Real>&, const RubriscopeHausdorff&, cudaStream_t);     \
  template void reduce_each(const Problem<Real>&, const ReduceScratch&, const RubriscopeHausdorff&, \
                            cudaStream_t);
RUBRISCOPE_INSTANTIATE(float)
RUBRISCOPE_INSTANTIATE(double)
#undef RUBRISCOPE_INSTANTIATE

}  // namespace rubriscope::cuda
