// Nearest neighbours in any number of dimensions: every query against every target, in tiles.
#pragma once

#include <cstdint>

#include "rubriscope/ops/hausdorff/pair.h"
#include "rubriscope/ops/hausdorff/tree_view.h"
#include "rubriscope/ops/isa.h"

namespace rubriscope::ops {

template <class Real>
struct BruteView {
  const Real* queries = nullptr;  ///< scaled, row by row
  const std::int32_t* query_index = nullptr;
  const Real* blocks = nullptr;  ///< scaled targets, sixteen a block, coordinate by coordinate
  const std::int32_t* target_index = nullptr;
  std::int64_t block_count = 0;        ///< the last block is filled up with its last point
  const Real* query_points = nullptr;  ///< as given
  const Real* target_points = nullptr;
  std::int64_t dimensions = 0;
  double scale = 1;
};

// clang-format off
#define RUBRISCOPE_DECLARE_BRUTE(Real)                                                                               \
  RUBRISCOPE_DECLARE_ISA(                                                                                            \
      /* As search_largest and search_each (search.h), for the queries begin … end.                               */ \
      void brute_largest(const BruteView<Real>& view, std::int64_t begin, std::int64_t end, std::uint64_t* shared,   \
                         PointPair* best);                                                                           \
      void brute_each(const BruteView<Real>& view, std::int64_t begin, std::int64_t end, double* squared,            \
                      std::int64_t* nearest);)
// clang-format on
RUBRISCOPE_DECLARE_BRUTE(float)
RUBRISCOPE_DECLARE_BRUTE(double)
#undef RUBRISCOPE_DECLARE_BRUTE

}  // namespace rubriscope::ops
