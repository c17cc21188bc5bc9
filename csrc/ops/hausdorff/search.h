// Nearest neighbours between two trees, sixteen queries at a time.
#pragma once

#include <cstdint>

#include "rubriscope/ops/hausdorff/pair.h"
#include "rubriscope/ops/hausdorff/tree_view.h"
#include "rubriscope/ops/isa.h"

namespace rubriscope::ops {

// clang-format off
#define RUBRISCOPE_DECLARE_SEARCH(Real)                                                                            \
  RUBRISCOPE_DECLARE_ISA(                                                                                          \
      /* The largest nearest distance of the queries in leaves begin, begin + step, … < end: `best` is replaced  */ \
      /* where it is larger(). Queries that have a neighbour strictly nearer than sqrt(*shared) are passed over; */ \
      /* *shared (a double's bits, in scaled units) is raised to what is found, by any number of threads.        */ \
      void search_largest(const TreeView<Real>& queries, const TreeView<Real>& targets, std::int64_t begin,        \
                          std::int64_t end, std::int64_t step, std::uint64_t* shared, PointPair* best);            \
      /* Each query's nearest target, the lowest index where equal: squared[query] (scaled) and nearest[query].  */ \
      void search_each(const TreeView<Real>& queries, const TreeView<Real>& targets, std::int64_t begin,           \
                       std::int64_t end, double* squared, std::int64_t* nearest);                                  \
      /* Bounds of `count` points of up to three dimensions, and whether a coordinate is NaN.                    */ \
      Extent extent(const Real* points, std::int64_t count, std::int64_t dimensions);                              \
      /* Morton keys of `bits` a dimension, of the points named by the low halves of `entries`, into the high ones */ \
      void morton(const Real* points, std::int64_t dimensions, double scale, const double* low, double per_unit,    \
                  int bits, std::int64_t count, std::uint64_t* entries);                                           \
      /* The boxes of leaves and of nodes, which go into lane (l % 16) of node l / 16.                           */ \
      void box_leaves(const Real* leaves, std::int64_t count, Real* nodes);                                        \
      void box_nodes(const Real* children, std::int64_t count, Real* nodes);)
// clang-format on
RUBRISCOPE_DECLARE_SEARCH(float)
RUBRISCOPE_DECLARE_SEARCH(double)
#undef RUBRISCOPE_DECLARE_SEARCH

}  // namespace rubriscope::ops
