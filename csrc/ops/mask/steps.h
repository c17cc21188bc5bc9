// Costs of the axes as numbers a narrow type holds: integers wherever the spacings are multiples of one
// another.
#pragma once

#include <cmath>

#include "rubriscope/ops/mask/mask.h"

namespace rubriscope::ops {

struct MaskSteps {
  double unit[3];  ///< per axis z, y, x: what axis_cost takes
  double scale;    ///< what distance_of_cost takes
  bool integral;   ///< whether every cost is an integer
};

inline MaskSteps mask_steps(const MaskOptions& options) {
  if (options.metric != MaskMetric::euclidean) return {{1, 1, 1}, 1, true};
  const double* s = options.spacing;
  const double least = std::fmin(s[0], std::fmin(s[1], s[2]));
  MaskSteps steps{{s[0] / least, s[1] / least, s[2] / least}, least, true};
  for (const double unit : steps.unit)
    steps.integral = steps.integral && unit == std::floor(unit) && unit < 1024;
  if (!steps.integral) return {{s[0], s[1], s[2]}, 1, false};
  return steps;
}

}  // namespace rubriscope::ops
