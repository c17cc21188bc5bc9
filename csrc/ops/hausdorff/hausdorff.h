// Hausdorff distances between point sets: which pair decides, and every point's nearest neighbour. Exact: the
// search prunes conservatively, and pairs are ranked by their distance in float64. Ties go to the lowest
// index.
#pragma once

#include <cstdint>
#include <vector>

#include "rubriscope/ops/parallel.h"

namespace rubriscope::ops {

/// Points row by row, `dimensions` apart (given beside).
template <class Real>
struct PointSet {
  const Real* points = nullptr;
  std::int64_t count = 0;
};

/// A distance and its pair; -1 where none decides it (an empty set, a NaN).
struct HausdorffPair {
  double distance = 0;
  std::int64_t x = -1;
  std::int64_t y = -1;
};

/// max_i min_j |x_i - y_j|, and with `symmetric` the larger of that and the same with x and y exchanged (the
/// former where they are equal). One set empty: infinite; both: NaN. A NaN coordinate: NaN. A point with an
/// infinite coordinate is infinitely far from every point.
template <class Real>
HausdorffPair hausdorff(PointSet<Real> x, PointSet<Real> y, std::int64_t dimensions, bool symmetric,
                        const Parallel& parallel);

/// Every query's nearest neighbour in one direction.
struct Neighbours {
  double value = 0;   ///< where valid is false, what any mean of the distances is
  bool valid = true;  ///< false: a set is empty or a coordinate NaN; nothing else is filled in
  std::vector<double> distance;
  std::vector<std::int64_t> nearest;  ///< of an infinitely far query: 0
};

/// For each x its nearest y, and with `symmetric` for each y its nearest x.
template <class Real>
void nearest_neighbours(PointSet<Real> x, PointSet<Real> y, std::int64_t dimensions, bool symmetric,
                        const Parallel& parallel, Neighbours* of_x, Neighbours* of_y);

}  // namespace rubriscope::ops
