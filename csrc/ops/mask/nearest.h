// Costs from every surface voxel of one mask to the nearest of another.
#pragma once

#include <vector>

#include "rubriscope/ops/mask/steps.h"
#include "rubriscope/ops/mask/surface.h"

namespace rubriscope::ops {

/// One cost for every surface voxel of `from`, rows in the order y, z, then x. Neither may be empty.
std::vector<double> nearest_costs(const Surface& from, const Surface& to, MaskMetric metric,
                                  const MaskSteps& steps, const Parallel& parallel);

}  // namespace rubriscope::ops
