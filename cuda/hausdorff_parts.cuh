// What the Hausdorff kernels' files share: the problem as kernels see it, scratch memory, and each other's
// launchers. Search, then reduce; for max a search leaves a pair a group of queries, else a distance a query.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "hausdorff.h"
#include "rubriscope/ops/hausdorff/pair.h"
#include "rubriscope/ops/hausdorff/point_batch.h"
#include "rubriscope/ops/hausdorff/rank.h"

namespace rubriscope::cuda {

/// Rows that a block of screening or reducing takes.
constexpr std::int64_t kPiece = 4096;

inline unsigned int blocks_for(std::int64_t count, int threads) {
  return static_cast<unsigned int>((count + threads - 1) / threads);
}

/// Gives out pieces of the scratch memory; from no memory it only counts.
class Carver {
 public:
  explicit Carver(void* base) : base_(static_cast<char*>(base)) {}

  template <class T>
  T* take(std::int64_t count) {
    T* const out = base_ == nullptr ? nullptr : reinterpret_cast<T*>(base_ + used_);
    used_ += (static_cast<std::size_t>(count) * sizeof(T) + 255) / 256 * 256;
    return out;
  }
  std::size_t used() const { return used_; }

 private:
  char* base_;
  std::size_t used_ = 0;
};

template <class Real>
struct Problem {
  ops::PointBatch<Real> sets;
  ops::SetInfo* info;          ///< sets.info, to be written
  ops::SetInfo* parts;         ///< of each piece of the sets
  unsigned long long* shared;  ///< (batch,): the largest squared distance known, for max, as a double's bits
  // By side, x and y.
  double* squared[2];        ///< (batch, rows): squared, scaled distances, or null for max
  std::int64_t* near[2];     ///< (batch, rows), or null
  ops::PointPair* pairs[2];  ///< (batch, groups), for max: the largest of each group of queries
  std::int64_t groups[2];
  int sides;  ///< 1: x only searches

  /// The squared distances and neighbours of a segment's points.
  RUBRISCOPE_HD double* squared_of(std::int64_t segment) const {
    return squared[sets.is_y(segment)] + sets.item(segment) * sets.rows(segment);
  }
  RUBRISCOPE_HD std::int64_t* near_of(std::int64_t segment) const {
    std::int64_t* const all = near[sets.is_y(segment)];
    return all == nullptr ? nullptr : all + sets.item(segment) * sets.rows(segment);
  }
  RUBRISCOPE_HD bool is_searched(std::int64_t segment) const { return !sets.is_y(segment) || sides == 2; }
};

#ifdef __CUDACC__
/// The largest known so far by any block.
__device__ __forceinline__ double known_largest(const unsigned long long* shared) {
  return __longlong_as_double(
      static_cast<long long>(*static_cast<const volatile unsigned long long*>(shared)));
}

/// Not negative, so its bits are in its order.
__device__ __forceinline__ void raise_largest(unsigned long long* shared, double squared) {
  atomicMax(shared, static_cast<unsigned long long>(__double_as_longlong(squared)));
}
#endif

// ---- hausdorff_tree.cu

template <class Real>
struct TreeScratch {
  std::uint64_t* keys[3];
  std::uint32_t* order[2];
  void* sorting;
  std::size_t sorting_bytes;
  ops::WideForest<Real> forest[2];  ///< by side
};

/// Takes the trees' memory, and says how many groups of queries there are.
template <class Real>
cudaError_t take_tree_scratch(Carver& carver, Problem<Real>& problem, TreeScratch<Real>& scratch);

template <class Real>
cudaError_t search_trees(const Problem<Real>& problem, const TreeScratch<Real>& scratch, cudaStream_t stream);

// ---- hausdorff_pairs.cu

/// How many groups of queries there are when every pair is looked at.
template <class Real>
void count_groups(Problem<Real>& problem);

template <class Real>
void search_pairs(const Problem<Real>& problem, cudaStream_t stream);

// ---- hausdorff_reduce.cu

struct ReduceScratch {
  double* sums;          ///< of each piece
  ops::Rank* ranks;      ///< of each segment
  unsigned int* counts;  ///< 256 of each segment
  double* factors;       ///< two of each item
};

template <class Real>
void take_reduce_scratch(Carver& carver, const Problem<Real>& problem, ReduceScratch& scratch);

template <class Real>
void reduce_largest(const Problem<Real>& problem, const RubriscopeHausdorff& args, cudaStream_t stream);

template <class Real>
void reduce_each(const Problem<Real>& problem, const ReduceScratch& scratch, const RubriscopeHausdorff& args,
                 cudaStream_t stream);

}  // namespace rubriscope::cuda
