// Percentiles of distances, as the conventions take them.
#pragma once

#include <cstdint>
#include <vector>

#include "rubriscope/ops/mask/steps.h"

namespace rubriscope::ops {

/// The percentile of distances given by their costs, by linear interpolation between order statistics.
/// Reorders `costs`, which must not be empty.
double interpolated_percentile(std::vector<double>& costs, const MaskOptions& options,
                               const MaskSteps& steps);

/// The least cost at which the share of the surface reaches the percentile; `areas` is by code.
double weighted_percentile(const std::vector<double>& costs, const std::vector<std::uint8_t>& codes,
                           const double* areas, const MaskOptions& options, const MaskSteps& steps);

}  // namespace rubriscope::ops
