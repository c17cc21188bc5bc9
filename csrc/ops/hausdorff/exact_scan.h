// One query's nearest target among all of them in float64, by a warp (wide_walk.h): for queries whose
// neighbour Real could not tell from the next one.
#pragma once

#include <cstdint>

#include "rubriscope/ops/hausdorff/pair.h"
#include "rubriscope/ops/hausdorff/wide_tree.h"

namespace rubriscope::ops {

/// The lowest index where equal; 0 where all targets are infinitely far. `count` fits an int32.
template <class Warp, class Real>
RUBRISCOPE_WARP PointPair exact_scan(const Warp& warp, const Real* query, std::int64_t index,
                                     const Real* targets, std::int64_t count, std::int64_t dimensions,
                                     double scale) {
  double best[Warp::kHeld];
  std::int32_t where[Warp::kHeld];
  warp.each([&](int held, int lane) {
    best[held] = INFINITY;
    where[held] = lane == 0 ? 0 : kNoPoint;
    for (std::int64_t j = lane; j < count; j += kLanes) {
      const double squared = squared_distance(query, targets + j * dimensions, dimensions, scale);
      if (squared < best[held]) {
        best[held] = squared;
        where[held] = static_cast<std::int32_t>(j);
      }
    }
  });
  PointPair out;
  out.squared = warp.template least<double>([&](int held, int) { return best[held]; });
  out.query = index;
  out.target = warp.template least<std::int32_t>(
      [&](int held, int) { return best[held] == out.squared ? where[held] : kNoPoint; });
  return out;
}

}  // namespace rubriscope::ops
