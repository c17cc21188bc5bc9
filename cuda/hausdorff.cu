// Hausdorff distances: the sets are screened, searched by trees or by every pair, and reduced. Candidates are
// ranked in float64 like on the CPU; nothing depends on the order in which threads run.
#include "hausdorff.h"

#include "hausdorff_parts.cuh"

namespace rubriscope::cuda {

namespace {

constexpr int kThreads = 256;

using ops::SetInfo;

/// Merges what the block's threads found, in pairs.
__device__ SetInfo merged(const SetInfo& mine) {
  __shared__ SetInfo all[kThreads];
  all[threadIdx.x] = mine;
  for (int half = kThreads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.x < half) all[threadIdx.x].merge(all[threadIdx.x + half]);
  }
  return all[0];  // whole for thread 0
}

/// A block a piece of a set.
template <class Real>
__global__ void __launch_bounds__(kThreads) screen(Problem<Real> problem) {
  const ops::PointBatch<Real>& sets = problem.sets;
  const ops::Segments pieces = ops::in_pieces(sets, kPiece);
  const std::int64_t segment = pieces.segment_of_row(blockIdx.x);
  const std::int64_t begin = (blockIdx.x - pieces.origin(segment)) * kPiece, length = sets.length(segment);
  const std::int64_t end = begin + kPiece < length ? begin + kPiece : length;
  const Real* const points = sets.points(segment);
  SetInfo mine;
  for (std::int64_t i = begin + threadIdx.x; i < end; i += kThreads) {
    mine.see(points + i * sets.dimensions, sets.dimensions, i);
  }
  const SetInfo all = merged(mine);
  if (threadIdx.x == 0) problem.parts[blockIdx.x] = all;
}

/// A block a set.
template <class Real>
__global__ void __launch_bounds__(kThreads) merge_parts(Problem<Real> problem) {
  const ops::Segments pieces = ops::in_pieces(problem.sets, kPiece);
  const std::int64_t segment = blockIdx.x;
  SetInfo mine;
  for (std::int64_t p = threadIdx.x; p < pieces.rows(segment); p += kThreads) {
    mine.merge(problem.parts[pieces.origin(segment) + p]);
  }
  const SetInfo all = merged(mine);
  if (threadIdx.x != 0) return;
  problem.info[segment] = all;
  if (segment < problem.sets.batch) problem.shared[segment] = 0;
}

/// A thread a row: what is not searched for is infinitely far from the first target.
template <class Real>
__global__ void prepare(Problem<Real> problem) {
  const ops::PointBatch<Real>& sets = problem.sets;
  const std::int64_t row = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (row >= sets.all_rows()) return;
  const std::int64_t segment = sets.segment_of_row(row), i = row - sets.origin(segment);
  const bool counts =
      problem.is_searched(segment) && i < sets.length(segment) && !sets.decision(sets.item(segment)).made;
  if (problem.squared[sets.is_y(segment)] != nullptr) {
    problem.squared_of(segment)[i] = counts ? static_cast<double>(INFINITY) : -1.0;
  }
  if (problem.near_of(segment) != nullptr) problem.near_of(segment)[i] = counts ? 0 : -1;
}

/// Everything a call computes with.
template <class Real>
struct Plan {
  Problem<Real> problem{};
  TreeScratch<Real> tree{};
  ReduceScratch reduce{};
  bool by_tree;
  std::size_t bytes = 0;

  cudaError_t make(const RubriscopeHausdorff& args, void* scratch) {
    Carver carver(scratch);
    const std::int64_t batch = args.batch, n = args.n, m = args.m;
    const ops::Segments segments{batch, n, m};
    problem.info = carver.take<SetInfo>(segments.segments());
    problem.parts = carver.take<SetInfo>(ops::in_pieces(segments, kPiece).all_rows());
    problem.shared = carver.take<unsigned long long>(batch);
    problem.sets = {segments,
                    static_cast<const Real*>(args.x),
                    static_cast<const Real*>(args.y),
                    args.x_lengths,
                    args.y_lengths,
                    args.dimensions,
                    problem.info};
    problem.sides = args.symmetric ? 2 : 1;
    problem.near[0] = args.near_x;
    problem.near[1] = args.near_y;
    by_tree = ops::tree_pays(static_cast<double>(batch), static_cast<double>(n), static_cast<double>(m),
                             args.dimensions, args.symmetric != 0);
    if (by_tree) {
      const cudaError_t taken = take_tree_scratch(carver, problem, tree);
      if (taken != cudaSuccess) return taken;
    } else {
      count_groups(problem);
    }
    for (int side = 0; side < problem.sides; ++side) {
      if (args.reduction < 0) {
        problem.pairs[side] = carver.take<ops::PointPair>(batch * problem.groups[side]);
      } else {
        problem.squared[side] = carver.take<double>(batch * (side == 0 ? n : m));
      }
    }
    if (args.reduction >= 0) take_reduce_scratch(carver, problem, reduce);
    bytes = carver.used();
    return cudaSuccess;
  }
};

template <class Real>
cudaError_t run(const RubriscopeHausdorff& args, cudaStream_t stream) {
  Plan<Real> plan;
  const cudaError_t made = plan.make(args, args.scratch);
  if (made != cudaSuccess) return made;
  const Problem<Real>& problem = plan.problem;
  const std::int64_t pieces = ops::in_pieces(problem.sets, kPiece).all_rows();
  if (pieces > 0) screen<Real><<<static_cast<unsigned int>(pieces), kThreads, 0, stream>>>(problem);
  merge_parts<Real><<<static_cast<unsigned int>(problem.sets.segments()), kThreads, 0, stream>>>(problem);
  if (args.reduction >= 0 && problem.sets.all_rows() > 0) {
    prepare<Real><<<blocks_for(problem.sets.all_rows(), kThreads), kThreads, 0, stream>>>(problem);
  }
  if (args.n > 0 && args.m > 0) {
    if (plan.by_tree) {
      const cudaError_t searched = search_trees(problem, plan.tree, stream);
      if (searched != cudaSuccess) return searched;
    } else {
      search_pairs(problem, stream);
    }
  }
  if (args.reduction < 0) {
    reduce_largest(problem, args, stream);
  } else {
    reduce_each(problem, plan.reduce, args, stream);
  }
  return cudaGetLastError();
}

template <class Real>
cudaError_t scratch_bytes(const RubriscopeHausdorff& args, std::size_t* bytes) {
  Plan<Real> plan;
  const cudaError_t made = plan.make(args, nullptr);
  *bytes = plan.bytes;
  return made;
}

}  // namespace

}  // namespace rubriscope::cuda

extern "C" cudaError_t rubriscope_hausdorff_scratch_bytes(const RubriscopeHausdorff* arguments,
                                                          std::size_t* bytes) {
  return arguments->is_double ? rubriscope::cuda::scratch_bytes<double>(*arguments, bytes)
                              : rubriscope::cuda::scratch_bytes<float>(*arguments, bytes);
}

extern "C" cudaError_t rubriscope_hausdorff(const RubriscopeHausdorff* arguments, cudaStream_t stream) {
  if (arguments->batch == 0) return cudaSuccess;
  return arguments->is_double ? rubriscope::cuda::run<double>(*arguments, stream)
                              : rubriscope::cuda::run<float>(*arguments, stream);
}
