// Distances of single pairs of points, in float64: what decides which pair wins, on the CPU and in the .cu
// files.
#pragma once

#include "rubriscope/ops/host_device.h"

namespace rubriscope::ops {

/// A query, its neighbour, and the square of their distance (in scaled coordinates). -1: none.
struct PointPair {
  double squared = -1;
  std::int64_t query = -1;
  std::int64_t target = -1;
};

/// Whether `a` goes before `b` as the largest nearest distance: larger, then the lower query. (The neighbour
/// of a query is unique: the nearest of the lowest index.)
RUBRISCOPE_HD bool larger(const PointPair& a, const PointPair& b) {
  return a.squared > b.squared || (a.squared == b.squared && a.query < b.query);
}

/// sum + d², the square rounded by itself: a multiply-add here and none there would give one pair two
/// distances, and ties would no longer be ties.
RUBRISCOPE_HD double add_square(double sum, double d) {
#ifdef __CUDA_ARCH__
  return __dadd_rn(sum, __dmul_rn(d, d));
#else
  return sum + d * d;
#endif
}

/// |x - y|² times scale². For float32 points in up to three dimensions every square is exact.
template <class Real>
RUBRISCOPE_HD double squared_distance(const Real* x, const Real* y, std::int64_t dimensions, double scale) {
  double sum = 0;
  for (std::int64_t k = 0; k < dimensions; ++k) {
    const double difference = (static_cast<double>(x[k]) - static_cast<double>(y[k])) * scale;
    sum = add_square(sum, difference);
  }
  return sum;
}

/// How far a squared distance computed in Real can be off: relatively, and absolutely where squares
/// underflow. A sum of `dimensions` squared differences has a relative error below (dimensions + 3) u.
template <class Real>
struct Rounding {
  Real relative;
  Real absolute;
};

template <class Real>
RUBRISCOPE_HD Rounding<Real> rounding(std::int64_t dimensions) {
  const double unit = sizeof(Real) == 4 ? 0x1p-24 : 0x1p-53;
  const double tiny = sizeof(Real) == 4 ? 0x1p-120 : 0x1p-1000;
  return {static_cast<Real>(8 * static_cast<double>(dimensions + 4) * unit), static_cast<Real>(tiny)};
}

/// An upper bound in Real of the true value behind `squared`, and of every computed value whose true one is
/// not above it.
template <class Real>
RUBRISCOPE_HD Real loosen(Real squared, Rounding<Real> error) {
  return squared + squared * error.relative + error.absolute;
}

/// A bound in Real such that every computed value below it has a true value below `squared`. Negative (no
/// value is below) where squared is too small to tell.
template <class Real>
RUBRISCOPE_HD Real tighten(double squared, Rounding<Real> error) {
  return static_cast<Real>((squared - 4 * static_cast<double>(error.absolute)) *
                           (1 - 2 * static_cast<double>(error.relative)));
}

}  // namespace rubriscope::ops
