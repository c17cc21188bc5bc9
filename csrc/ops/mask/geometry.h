// What a distance between voxels is: shared by the CPU kernel and cuda/mask.cu.
#pragma once

#include "rubriscope/ops/host_device.h"

namespace rubriscope::ops {

enum class MaskMetric : int { euclidean = 0, chessboard = 1, taxicab = 2 };
enum class MaskConvention : int { monai = 0, deepmind = 1, medpy = 2 };

/// The cost of `offset` voxels along an axis of step `unit`: squared where the metric is Euclidean. Costs of
/// the axes combine into one that orders distances; distance_of_cost gives the distance itself.
RUBRISCOPE_HD double axis_cost(MaskMetric metric, std::int64_t offset, double unit) {
  const double length = static_cast<double>(offset) * unit;
  return metric == MaskMetric::euclidean ? length * length : (length < 0 ? -length : length);
}

RUBRISCOPE_HD double combined_cost(MaskMetric metric, double a, double b) {
  if (metric == MaskMetric::chessboard) return a > b ? a : b;
  return a + b;
}

RUBRISCOPE_HD double distance_of_cost(MaskMetric metric, double cost, double scale) {
  return metric == MaskMetric::euclidean ? scale * std::sqrt(cost) : scale * cost;
}

/// Two neighbours of a sorted sample and how far a quantile lies between them: from the nearer end, so that
/// it is exact at both.
RUBRISCOPE_HD double between(double low, double high, double weight) {
  return weight < 0.5 ? low + weight * (high - low) : high - (high - low) * (1 - weight);
}

/// The position of a percentile among `count` sorted values. MONAI computes it with torch.quantile on float32
/// values, so in float32, which on a large surface is off by thousandths; NumPy (MedPy) in float64.
RUBRISCOPE_HD double percentile_position(MaskConvention convention, double percentile, std::int64_t count) {
  const double q = percentile / 100;
  if (convention == MaskConvention::monai) {
    return static_cast<double>(static_cast<float>(q) * static_cast<float>(count - 1));
  }
  return q * static_cast<double>(count - 1);
}

}  // namespace rubriscope::ops
