// Nearest neighbours between two sets in one grid, a query at a time against sixteen targets.
#pragma once

#include <cstdint>

#include "rubriscope/ops/hausdorff/grid_view.h"
#include "rubriscope/ops/hausdorff/pair.h"
#include "rubriscope/ops/isa.h"

namespace rubriscope::ops {

// clang-format off
#define RUBRISCOPE_DECLARE_GRID(Real)                                                                               \
  RUBRISCOPE_DECLARE_ISA(                                                                                           \
      /* As search_largest and search_each (search.h), for the queries in cells begin, begin + step, … < end.    */ \
      void grid_largest(const GridView<Real>& view, std::int64_t begin, std::int64_t end, std::int64_t step,        \
                        std::uint64_t* shared, PointPair* best);                                                    \
      void grid_each(const GridView<Real>& view, std::int64_t begin, std::int64_t end, double* squared,             \
                     std::int64_t* nearest);                                                                        \
      /* Each point's cell; a point that is not finite gets any.                                                  */ \
      void grid_cells(const GridGeometry<Real>& geometry, const Real* points, std::int64_t count,                   \
                      std::int64_t dimensions, double scale, std::int32_t* cells);)
// clang-format on
RUBRISCOPE_DECLARE_GRID(float)
RUBRISCOPE_DECLARE_GRID(double)
#undef RUBRISCOPE_DECLARE_GRID

}  // namespace rubriscope::ops
