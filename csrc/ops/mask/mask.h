// Hausdorff distance of segmentation masks, by the conventions of three libraries.
#pragma once

#include <cstdint>
#include <string>

#include "rubriscope/ops/mask/geometry.h"
#include "rubriscope/ops/parallel.h"

namespace rubriscope::ops {

struct MaskShape {
  std::int64_t items;    ///< masks, one behind the other
  int dimensions;        ///< 2 or 3
  std::int64_t size[3];  ///< voxels along z, y, x; z is 1 in two dimensions
};

struct MaskOptions {
  MaskMetric metric = MaskMetric::euclidean;
  MaskConvention convention = MaskConvention::monai;
  double percentile = -1;  ///< 0 to 100, or negative for the maximum
  bool directed = false;   ///< from the prediction to the target only
  double spacing[3] = {1, 1, 1};
};

/// The enum a name stands for; throws std::invalid_argument that names what was got.
MaskMetric mask_metric(const std::string& name);
MaskConvention mask_convention(const std::string& name);

/// Throws std::invalid_argument where the shape or the options make no sense.
void check_mask_arguments(const MaskShape& shape, const MaskOptions& options);

/// One distance an item into `out`: inf where one of the masks is empty, NaN where both are.
/// A byte that is not 0 is foreground.
void mask_distance(const std::uint8_t* prediction, const std::uint8_t* target, const MaskShape& shape,
                   const MaskOptions& options, double* out, const Parallel& parallel);

}  // namespace rubriscope::ops
