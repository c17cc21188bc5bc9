// From every point's nearest distance to one number, and the way back.
#pragma once

#include <cstdint>
#include <vector>

#include "rubriscope/ops/hausdorff/combine.h"
#include "rubriscope/ops/hausdorff/hausdorff.h"

namespace rubriscope::ops {

/// The reduction of one direction (of_y null) or both. Where weights are given, weight_x[i] becomes the
/// derivative of the result by x's i-th nearest distance (by its square for chamfer_squared), and likewise
/// weight_y.
double reduce_neighbours(const Neighbours& of_x, const Neighbours* of_y, PointReduction reduction,
                         double percentile, double* weight_x, double* weight_y);

/// The gradient of sum_i weight[i] |a_i - b_near[i]| (of the squares with `squared`), times `gradient`, into
/// the rows of a and b. One call adds up one set's rows in a fixed order: those it has as a query, then those
/// it has as others' neighbour in their order. Pairs at distance zero, at infinity and with index -1 give
/// nothing.
template <class Real>
void neighbours_backward(const Real* a, std::int64_t a_count, const Real* b, std::int64_t b_count,
                         std::int64_t dimensions, const std::int64_t* near_a, const double* weight_a,
                         const std::int64_t* near_b, const double* weight_b, bool squared, double gradient,
                         Real* out);

}  // namespace rubriscope::ops
