// The search by trees (csrc/ops/hausdorff/wide_search.h): keys, one sort of all points, trees from the leaves
// up, and a warp for every 32 queries. What the kernels compute is in headers that the CPU's tests run; here
// is only which warp does what.
#include <cub/device/device_radix_sort.cuh>

#include "hausdorff_parts.cuh"
#include "rubriscope/ops/hausdorff/wide_search.h"
#include "warp.cuh"

namespace rubriscope::cuda {

namespace {

using ops::kLanes;
using ops::PointPair;
using ops::WideForest;
using ops::WideStack;
using ops::WideTree;
using ops::ZLayout;

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kLanes;
/// For max, one packet in so many goes first, so that all others know a large distance from the start.
constexpr std::int64_t kSampled = 64;

template <class Real>
__global__ void make_keys(Problem<Real> problem, ZLayout layout, std::uint64_t* low, std::uint64_t* high,
                          std::uint32_t* order) {
  const std::int64_t row = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (row >= problem.sets.all_rows()) return;
  const ops::ZKey key = ops::z_key_of_row(problem.sets, layout, row);
  low[row] = key.low;
  high[row] = key.high;
  order[row] = static_cast<std::uint32_t>(row);
}

__global__ void gather(const std::uint64_t* from, const std::uint32_t* order, std::int64_t count,
                       std::uint64_t* to) {
  const std::int64_t at = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (at < count) to[at] = from[order[at]];
}

__device__ std::int64_t warp_number() {
  return static_cast<std::int64_t>(blockIdx.x) * kWarps + threadIdx.x / kLanes;
}

/// A warp a leaf, of one side's trees.
template <class Real>
__global__ void __launch_bounds__(kThreads)
    fill_leaves(Problem<Real> problem, WideForest<Real> forest, const std::uint32_t* order, int side) {
  const std::int64_t places = forest.shape.nodes(0) * kLanes, warp = warp_number();
  if (warp >= problem.sets.batch * places) return;
  const std::int64_t segment = side * problem.sets.batch + warp / places,
                     origin = problem.sets.origin(segment);
  ops::fill_wide_leaf(Warp{}, forest.tree(problem.sets, segment), order + origin,
                      static_cast<std::uint32_t>(origin), warp % places);
}

/// A warp a box of a level above the leaves'.
template <class Real>
__global__ void __launch_bounds__(kThreads)
    fill_boxes(Problem<Real> problem, WideForest<Real> forest, int side, int level) {
  const std::int64_t places = forest.shape.nodes(level) * kLanes, warp = warp_number();
  if (warp >= problem.sets.batch * places) return;
  const std::int64_t segment = side * problem.sets.batch + warp / places;
  ops::fill_wide_box(Warp{}, forest.tree(problem.sets, segment), level, warp % places);
}

/// A warp a packet of one side's queries, or one in `step` of them.
template <class Real, bool Max>
__global__ void __launch_bounds__(kThreads) search(Problem<Real> problem, WideForest<Real> own,
                                                   WideForest<Real> others, int side, std::int64_t step) {
  __shared__ Real near[kWarps][WideStack<Real>::kPlaces];
  __shared__ float order[kWarps][WideStack<Real>::kPlaces];
  const ops::PointBatch<Real>& sets = problem.sets;
  const std::int64_t packets = (own.shape.leaves + step - 1) / step, warp = warp_number();
  if (warp >= sets.batch * packets) return;
  const std::int64_t item = warp / packets, packet = warp % packets * step;
  const std::int64_t segment = side * sets.batch + item;
  // In shared memory they take no registers, of which the walk needs many.
  __shared__ WideTree<Real> trees[kWarps][2];
  WideTree<Real>* const both = trees[threadIdx.x / kLanes];
  if (Warp::lane() < 2) {
    both[Warp::lane()] = Warp::lane() == 0 ? own.tree(sets, segment) : others.tree(sets, sets.other(segment));
  }
  __syncwarp();
  const WideTree<Real>& queries = both[0];
  const WideTree<Real>& targets = both[1];
  const WideStack<Real> stack{near[threadIdx.x / kLanes], order[threadIdx.x / kLanes]};
  const bool searches = packet < queries.leaves() && sets.searches(segment);
  if constexpr (Max) {
    PointPair pair;
    if (searches) {
      pair = ops::wide_largest(Warp{}, stack, queries, targets, packet, known_largest(problem.shared + item));
    }
    if (Warp::lane() != 0) return;
    problem.pairs[side][item * problem.groups[side] + packet] = pair;
    if (pair.squared >= 0) raise_largest(problem.shared + item, pair.squared);
  } else if (searches) {
    ops::wide_each(Warp{}, stack, queries, targets, packet, problem.squared_of(segment),
                   problem.near_of(segment));
  }
}

template <class Real, bool Max>
void launch_search(const Problem<Real>& problem, const TreeScratch<Real>& scratch, int side,
                   std::int64_t step, cudaStream_t stream) {
  const std::int64_t packets = (scratch.forest[side].shape.leaves + step - 1) / step;
  search<Real, Max><<<blocks_for(problem.sets.batch * packets, kWarps), kThreads, 0, stream>>>(
      problem, scratch.forest[side], scratch.forest[1 - side], side, step);
}

cudaError_t sort(const std::uint64_t* keys, std::uint64_t* sorted, const std::uint32_t* order,
                 std::uint32_t* reordered, std::int64_t count, int end_bit, void* memory, std::size_t* bytes,
                 cudaStream_t stream) {
  return cub::DeviceRadixSort::SortPairs(memory, *bytes, keys, sorted, order, reordered, count, 0, end_bit,
                                         stream);
}

}  // namespace

template <class Real>
cudaError_t take_tree_scratch(Carver& carver, Problem<Real>& problem, TreeScratch<Real>& scratch) {
  const std::int64_t rows = problem.sets.all_rows(), batch = problem.sets.batch;
  for (std::uint64_t*& keys : scratch.keys) keys = carver.take<std::uint64_t>(rows);
  for (std::uint32_t*& order : scratch.order) order = carver.take<std::uint32_t>(rows);
  const cudaError_t sized =
      sort(nullptr, nullptr, nullptr, nullptr, rows, 64, nullptr, &scratch.sorting_bytes, cudaStream_t{});
  if (sized != cudaSuccess) return sized;
  scratch.sorting = carver.take<char>(static_cast<std::int64_t>(scratch.sorting_bytes));
  for (int side = 0; side < 2; ++side) {
    ops::WideForest<Real>& forest = scratch.forest[side];
    forest.shape = ops::wide_shape(side == 0 ? problem.sets.n : problem.sets.m);
    const std::int64_t leaves = batch * forest.shape.leaves, nodes = batch * forest.shape.all_nodes();
    forest.coordinates = carver.take<Real>(leaves * ops::kWideLeafReals);
    forest.index = carver.take<std::int32_t>(leaves * kLanes);
    forest.boxes = carver.take<Real>(nodes * ops::kWideNodeReals);
    forest.first = carver.take<std::int32_t>(nodes * kLanes);
    problem.groups[side] = forest.shape.leaves;
  }
  return cudaSuccess;
}

template <class Real>
cudaError_t search_trees(const Problem<Real>& problem, const TreeScratch<Real>& scratch,
                         cudaStream_t stream) {
  const std::int64_t rows = problem.sets.all_rows(), batch = problem.sets.batch;
  const ZLayout layout = ops::z_layout(problem.sets.segments(), problem.sets.dimensions);
  const unsigned int blocks = blocks_for(rows, kThreads);
  std::uint64_t* const low = scratch.keys[0];
  std::uint64_t* const high = scratch.keys[1];
  std::uint64_t* const sorted = scratch.keys[2];
  std::uint32_t* const given = scratch.order[0];
  std::uint32_t* const by_low = scratch.order[1];
  make_keys<Real><<<blocks, kThreads, 0, stream>>>(problem, layout, low, high, given);
  std::size_t bytes = scratch.sorting_bytes;
  // By the low words, then stably by the high ones.
  cudaError_t done =
      sort(low, sorted, given, by_low, rows, layout.low_end(), scratch.sorting, &bytes, stream);
  if (done != cudaSuccess) return done;
  gather<<<blocks, kThreads, 0, stream>>>(high, by_low, rows, low);
  done = sort(low, sorted, by_low, given, rows, layout.high_end(), scratch.sorting, &bytes, stream);
  if (done != cudaSuccess) return done;
  for (int side = 0; side < 2; ++side) {
    const ops::WideShape shape = scratch.forest[side].shape;
    fill_leaves<Real><<<blocks_for(batch * shape.nodes(0) * kLanes, kWarps), kThreads, 0, stream>>>(
        problem, scratch.forest[side], given, side);
    for (int level = 1; level < shape.levels; ++level) {
      fill_boxes<Real><<<blocks_for(batch * shape.nodes(level) * kLanes, kWarps), kThreads, 0, stream>>>(
          problem, scratch.forest[side], side, level);
    }
  }
  const bool max = problem.pairs[0] != nullptr;
  for (int side = 0; side < problem.sides && max; ++side) {
    if (problem.groups[side] < 4 * kSampled) continue;
    launch_search<Real, true>(problem, scratch, side, kSampled, stream);
  }
  for (int side = 0; side < problem.sides; ++side) {
    if (max) {
      launch_search<Real, true>(problem, scratch, side, 1, stream);
    } else {
      launch_search<Real, false>(problem, scratch, side, 1, stream);
    }
  }
  return cudaGetLastError();
}

template cudaError_t take_tree_scratch(Carver&, Problem<float>&, TreeScratch<float>&);
template cudaError_t take_tree_scratch(Carver&, Problem<double>&, TreeScratch<double>&);
template cudaError_t search_trees(const Problem<float>&, const TreeScratch<float>&, cudaStream_t);
template cudaError_t search_trees(const Problem<double>&, const TreeScratch<double>&, cudaStream_t);

}  // namespace rubriscope::cuda
