// What a look over all points of a set tells before any search, put together from pieces in any order; for
// the .cu files and what checks them on the CPU.
#pragma once

#include <cmath>
#include <cstdint>

#include "rubriscope/ops/host_device.h"

namespace rubriscope::ops {

struct SetInfo {
  double largest = 0;  ///< |coordinate| of finite points
  double low[3] = {INFINITY, INFINITY, INFINITY};
  double high[3] = {-INFINITY, -INFINITY, -INFINITY};  ///< of finite points, the first three coordinates
  std::int64_t first_infinite = -1;                    ///< index of a point with an infinite coordinate
  std::int64_t finite = 0;                             ///< how many are finite
  bool nan = false;

  template <class Real>
  RUBRISCOPE_HD void see(const Real* point, std::int64_t dimensions, std::int64_t index) {
    double most = 0;
    for (std::int64_t k = 0; k < dimensions; ++k) {
      const double size = std::fabs(static_cast<double>(point[k]));
      if (size != size) nan = true;
      most = std::fmax(most, size);
    }
    if (std::isinf(most)) {
      if (first_infinite < 0 || index < first_infinite) first_infinite = index;
      return;
    }
    ++finite;
    largest = std::fmax(largest, most);
    for (int k = 0; k < 3 && k < dimensions; ++k) {
      low[k] = std::fmin(low[k], static_cast<double>(point[k]));
      high[k] = std::fmax(high[k], static_cast<double>(point[k]));
    }
  }

  RUBRISCOPE_HD void merge(const SetInfo& other) {
    nan = nan || other.nan;
    largest = std::fmax(largest, other.largest);
    finite += other.finite;
    if (other.first_infinite >= 0 && (first_infinite < 0 || other.first_infinite < first_infinite)) {
      first_infinite = other.first_infinite;
    }
    for (int k = 0; k < 3; ++k) {
      low[k] = std::fmin(low[k], other.low[k]);
      high[k] = std::fmax(high[k], other.high[k]);
    }
  }
};

/// A power of two, itself within Real, that keeps squares of coordinates up to `largest` from overflowing,
/// and those of usual differences from underflowing, in float32.
template <class Real>
RUBRISCOPE_HD double scale_for(double largest) {
  if (largest == 0 || (largest >= 0x1p-30 && largest <= 0x1p50)) return 1;
  const int most = sizeof(Real) == 4 ? 100 : 1000;
  const int power = 50 - std::ilogb(largest);
  return std::ldexp(1.0, power < -most ? -most : power > most ? most : power);
}

/// Whether an empty set or a NaN decides, and what; the same for every reduction.
struct Decision {
  bool made;
  double value;
};

RUBRISCOPE_HD Decision decide(std::int64_t x_count, const SetInfo& x, std::int64_t y_count,
                              const SetInfo& y) {
  const bool nan = x.nan || y.nan;
  if (nan || (x_count == 0 && y_count == 0)) return {true, NAN};
  return {x_count == 0 || y_count == 0, INFINITY};
}

/// The query that is infinitely far from every target, or -1: one at infinity, or any if all targets are.
RUBRISCOPE_HD std::int64_t infinitely_far(const SetInfo& queries, const SetInfo& targets) {
  return targets.finite == 0 ? 0 : queries.first_infinite;
}

}  // namespace rubriscope::ops
