#include "rubriscope/ops/mask/mask.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <vector>

#include "rubriscope/ops/mask/nearest.h"
#include "rubriscope/ops/mask/percentile.h"
#include "rubriscope/ops/mask/surfel.h"

namespace rubriscope::ops {

namespace {

struct Side {
  MaskBits mask;
  Surface surface;
};

Side side_of(const std::uint8_t* bytes, const MaskShape& shape, const MaskOptions& options,
             const Parallel& parallel) {
  Side side;
  side.mask = pack_mask(bytes, shape, parallel);
  side.surface =
      find_surface(side.mask, shape.dimensions, options.convention == MaskConvention::deepmind, parallel);
  return side;
}

double percentile_of(const Side& from, std::vector<double>& costs, int dimensions, const MaskOptions& options,
                     const double* areas) {
  const MaskSteps steps = mask_steps(options);
  if (options.convention == MaskConvention::deepmind && options.percentile >= 0) {
    return weighted_percentile(costs, corner_codes(from.mask, from.surface, dimensions), areas, options,
                               steps);
  }
  return interpolated_percentile(costs, options, steps);
}

double distance_of(const std::uint8_t* prediction, const std::uint8_t* target, const MaskShape& shape,
                   const MaskOptions& options, const double* areas, const Parallel& parallel) {
  // Two threads take one mask, then one direction, each: fewer barriers than dividing every stage.
  const bool by_side = parallel.threads() <= 2;
  const Parallel& outer = by_side ? parallel : serial();
  const Parallel& inner = by_side ? serial() : parallel;
  Side sides[2];
  for_pieces(outer, 2, 1, [&](std::int64_t side, std::int64_t) {
    sides[side] = side_of(side == 0 ? prediction : target, shape, options, inner);
  });
  if (sides[0].surface.count == 0 || sides[1].surface.count == 0) {
    return sides[0].surface.count == sides[1].surface.count ? std::numeric_limits<double>::quiet_NaN()
                                                            : std::numeric_limits<double>::infinity();
  }
  const bool pooled = options.convention == MaskConvention::medpy;
  const int directions = options.directed ? 1 : 2;
  std::vector<double> costs[2];
  double found[2] = {0, 0};
  for_pieces(outer, directions, 1, [&](std::int64_t way, std::int64_t) {
    const Side& from = sides[way];
    costs[way] =
        nearest_costs(from.surface, sides[1 - way].surface, options.metric, mask_steps(options), inner);
    if (!pooled) found[way] = percentile_of(from, costs[way], shape.dimensions, options, areas);
  });
  if (!pooled) return std::max(found[0], found[1]);
  costs[0].insert(costs[0].end(), costs[1].begin(), costs[1].end());
  return interpolated_percentile(costs[0], options, mask_steps(options));
}

}  // namespace

MaskMetric mask_metric(const std::string& name) {
  if (name == "euclidean") return MaskMetric::euclidean;
  if (name == "chessboard") return MaskMetric::chessboard;
  if (name == "taxicab") return MaskMetric::taxicab;
  throw std::invalid_argument("metric is '" + name + "', expected 'euclidean', 'chessboard' or 'taxicab'");
}

MaskConvention mask_convention(const std::string& name) {
  if (name == "monai") return MaskConvention::monai;
  if (name == "deepmind") return MaskConvention::deepmind;
  if (name == "medpy") return MaskConvention::medpy;
  throw std::invalid_argument("convention is '" + name + "', expected 'monai', 'deepmind' or 'medpy'");
}

void check_mask_arguments(const MaskShape& shape, const MaskOptions& options) {
  if (shape.dimensions != 2 && shape.dimensions != 3) {
    throw std::invalid_argument("spacing has " + std::to_string(shape.dimensions) +
                                " entries, expected 2 or 3");
  }
  for (const double spacing : options.spacing) {
    if (!(spacing > 0) || !std::isfinite(spacing)) {
      throw std::invalid_argument("spacing holds " + std::to_string(spacing) +
                                  ", expected positive finite numbers");
    }
  }
  if (!(options.percentile <= 100)) {
    throw std::invalid_argument("percentile is " + std::to_string(options.percentile) +
                                ", expected 0 to 100");
  }
  if (options.metric != MaskMetric::euclidean && options.convention != MaskConvention::monai) {
    throw std::invalid_argument("metric: DeepMind's and MedPy's conventions know the Euclidean metric only");
  }
}

void mask_distance(const std::uint8_t* prediction, const std::uint8_t* target, const MaskShape& shape,
                   const MaskOptions& given, double* out, const Parallel& pool) {
  check_mask_arguments(shape, given);
  MaskOptions options = given;
  // MONAI takes a percentile of 0 for none: the maximum.
  if (options.convention == MaskConvention::monai && options.percentile == 0) options.percentile = -1;
  double areas[256];
  if (options.convention == MaskConvention::deepmind) {
    if (shape.dimensions == 3) {
      surfel_areas(options.spacing, areas);
    } else {
      surfel_lengths(options.spacing + 1, areas);
    }
  }
  const std::int64_t voxels = shape.size[0] * shape.size[1] * shape.size[2];
  if (voxels == 0) {
    std::fill_n(out, shape.items, std::numeric_limits<double>::quiet_NaN());
    return;
  }
  // A pair of masks below 32³ takes tens of microseconds: not worth waking a thread for.
  const Parallel& parallel = shape.items * voxels < (std::int64_t{1} << 15) ? serial() : pool;
  const bool several = shape.items >= parallel.threads() && shape.items > 1;
  const Parallel& inner = several ? serial() : parallel;
  for_pieces(several ? parallel : serial(), shape.items, 1, [&](std::int64_t item, std::int64_t) {
    out[item] = distance_of(prediction + item * voxels, target + item * voxels, shape, options, areas, inner);
  });
}

}  // namespace rubriscope::ops
