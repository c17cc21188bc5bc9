// The derivative of one pair's distance, on the CPU and in the .cu files.
#pragma once

#include "rubriscope/ops/host_device.h"

namespace rubriscope::ops {

/// Adds weight times the gradient by `a` of |a - b| (a unit vector), or of its square, to `sum`. Nothing
/// where the distance is zero or infinite, or the weight zero.
template <class Real>
RUBRISCOPE_HD void add_pair_gradient(const Real* a, const Real* b, std::int64_t dimensions, bool squared,
                                     double weight, double* sum) {
  if (weight == 0) return;
  // The largest difference is taken out, so that squares neither overflow nor underflow.
  double largest = 0;
  for (std::int64_t k = 0; k < dimensions; ++k) {
    const double size = fabs(static_cast<double>(a[k]) - static_cast<double>(b[k]));
    if (!(size <= 1.7976931348623157e308)) return;
    largest = size > largest ? size : largest;
  }
  if (largest == 0) return;
  double factor = 2 * weight;
  if (!squared) {
    double square = 0;
    for (std::int64_t k = 0; k < dimensions; ++k) {
      const double part = (static_cast<double>(a[k]) - static_cast<double>(b[k])) / largest;
      square += part * part;
    }
    factor = weight / sqrt(square);
  }
  for (std::int64_t k = 0; k < dimensions; ++k) {
    const double difference = static_cast<double>(a[k]) - static_cast<double>(b[k]);
    sum[k] += factor * (squared ? difference : difference / largest);
  }
}

}  // namespace rubriscope::ops
