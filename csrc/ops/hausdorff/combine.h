// The last step of every reduction, on the CPU and in the .cu files: from each direction's figure to one
// number and each direction's share in it.
#pragma once

#include <cmath>
#include <cstdint>

#include "rubriscope/ops/hausdorff/pair.h"
#include "rubriscope/ops/hausdorff/set_info.h"
#include "rubriscope/ops/host_device.h"

namespace rubriscope::ops {

/// percentile: numpy's linear interpolation; the larger of both directions. mean: the mean of both
/// directions' means. modified: the larger of them (Dubuisson and Jain 1994). chamfer: their sum;
/// chamfer_squared: of squared distances.
enum class PointReduction { percentile, mean, modified, chamfer, chamfer_squared };

struct Combined {
  double value;
  double factor[2];  ///< the derivative of the value by each direction's figure
};

/// `values`: the directions' figures, x's and, with `sides` 2, y's. Equal ones count as x's where the larger
/// is taken.
RUBRISCOPE_HD Combined combine(PointReduction reduction, int sides, const double (&values)[2]) {
  if (sides == 1) return {values[0], {1, 0}};
  if (reduction == PointReduction::percentile || reduction == PointReduction::modified) {
    return values[1] > values[0] ? Combined{values[1], {0, 1}} : Combined{values[0], {1, 0}};
  }
  if (reduction == PointReduction::mean) return {0.5 * (values[0] + values[1]), {0.5, 0.5}};
  return {values[0] + values[1], {1, 1}};
}

/// Two neighbouring order statistics and how far a percentile lies between them.
RUBRISCOPE_HD double between(double low, double high, double fraction) {
  return low == high || fraction == 0 ? low : low + (high - low) * fraction;
}

/// A distance and its pair; -1 where none decides it.
struct Farthest {
  double distance;
  std::int64_t x, y;
};

/// From what screening tells and the largest pair of each direction (`back` without a pair: not searched).
RUBRISCOPE_HD Farthest settle_largest(const Decision& decision, const SetInfo& x, const SetInfo& y,
                                      bool symmetric, const PointPair& there, const PointPair& back,
                                      double scale) {
  if (decision.made) return {decision.value, -1, -1};
  const std::int64_t far_x = infinitely_far(x, y), far_y = symmetric ? infinitely_far(y, x) : -1;
  if (far_x >= 0) return {INFINITY, far_x, 0};
  if (far_y >= 0) return {INFINITY, 0, far_y};
  if (back.squared > there.squared) return {std::sqrt(back.squared) / scale, back.target, back.query};
  return {std::sqrt(there.squared) / scale, there.query, there.target};
}

}  // namespace rubriscope::ops
