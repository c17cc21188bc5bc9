#include "rubriscope/ops/hausdorff/reduce.h"

#include <algorithm>
#include <cmath>

#include "rubriscope/ops/hausdorff/pair_gradient.h"

namespace rubriscope::ops {

namespace {

/// A mean's sum in float64 over fixed pieces of this length.
constexpr std::size_t kPiece = 1024;

double mean(const std::vector<double>& values, bool squared) {
  double sum = 0;
  for (std::size_t begin = 0; begin < values.size(); begin += kPiece) {
    const std::size_t end = std::min(begin + kPiece, values.size());
    double part = 0;
    for (std::size_t i = begin; i < end; ++i) part += squared ? values[i] * values[i] : values[i];
    sum += part;
  }
  return sum / static_cast<double>(values.size());
}

/// Two order statistics and their weights.
struct Percentile {
  double low, high;
  double fraction;

  double value() const { return between(low, high, fraction); }
};

Percentile percentile_of(const std::vector<double>& values, double percentile) {
  const double place = percentile / 100.0 * static_cast<double>(values.size() - 1);
  const auto below = static_cast<std::size_t>(place);
  std::vector<double> order = values;
  std::nth_element(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(below), order.end());
  Percentile out{order[below], order[below], place - static_cast<double>(below)};
  if (below + 1 < order.size()) {
    out.high = *std::min_element(order.begin() + static_cast<std::ptrdiff_t>(below) + 1, order.end());
  }
  return out;
}

/// The first query that has this distance.
std::size_t first_of(const std::vector<double>& values, double value) {
  return static_cast<std::size_t>(std::find(values.begin(), values.end(), value) - values.begin());
}

void add_percentile(const std::vector<double>& values, const Percentile& percentile, double* weight) {
  weight[first_of(values, percentile.low)] += 1 - percentile.fraction;
  weight[first_of(values, percentile.high)] += percentile.fraction;
}

}  // namespace

double reduce_neighbours(const Neighbours& of_x, const Neighbours* of_y, PointReduction reduction,
                         double percentile, double* weight_x, double* weight_y) {
  const Neighbours* const sides[2] = {&of_x, of_y};
  double* const weights[2] = {weight_x, weight_y};
  const int directions = of_y == nullptr ? 1 : 2;
  for (int d = 0; d < directions; ++d) {
    if (weights[d] != nullptr) std::fill_n(weights[d], sides[d]->distance.size(), 0.0);
  }
  if (!of_x.valid) return of_x.value;
  double values[2] = {0, 0};
  if (reduction == PointReduction::percentile) {
    Percentile found[2];
    for (int d = 0; d < directions; ++d) {
      found[d] = percentile_of(sides[d]->distance, percentile);
      values[d] = found[d].value();
    }
    const Combined all = combine(reduction, directions, values);
    const int which = all.factor[0] != 0 ? 0 : 1;
    if (weights[which] != nullptr) add_percentile(sides[which]->distance, found[which], weights[which]);
    return all.value;
  }
  const bool squared = reduction == PointReduction::chamfer_squared;
  for (int d = 0; d < directions; ++d) values[d] = mean(sides[d]->distance, squared);
  const Combined all = combine(reduction, directions, values);
  for (int d = 0; d < directions; ++d) {
    if (weights[d] == nullptr) continue;
    std::fill_n(weights[d], sides[d]->distance.size(),
                all.factor[d] / static_cast<double>(sides[d]->distance.size()));
  }
  return all.value;
}

template <class Real>
void neighbours_backward(const Real* a, std::int64_t a_count, const Real* b, std::int64_t b_count,
                         std::int64_t dimensions, const std::int64_t* near_a, const double* weight_a,
                         const std::int64_t* near_b, const double* weight_b, bool squared, double gradient,
                         Real* out) {
  std::vector<double> sums(static_cast<std::size_t>(a_count * dimensions), 0.0);
  for (std::int64_t i = 0; i < a_count; ++i) {
    const std::int64_t j = near_a == nullptr ? -1 : near_a[i];
    if (j < 0 || j >= b_count) continue;
    add_pair_gradient(a + i * dimensions, b + j * dimensions, dimensions, squared, weight_a[i] * gradient,
                      sums.data() + i * dimensions);
  }
  for (std::int64_t j = 0; near_b != nullptr && j < b_count; ++j) {
    const std::int64_t i = near_b[j];
    if (i < 0 || i >= a_count) continue;
    add_pair_gradient(a + i * dimensions, b + j * dimensions, dimensions, squared, weight_b[j] * gradient,
                      sums.data() + i * dimensions);
  }
  std::transform(sums.begin(), sums.end(), out, [](double v) { return static_cast<Real>(v); });
}

#define RUBRISCOPE_INSTANTIATE(Real)                                                                        \
  template void neighbours_backward(const Real*, std::int64_t, const Real*, std::int64_t, std::int64_t,     \
                                    const std::int64_t*, const double*, const std::int64_t*, const double*, \
                                    bool, double, Real*);
RUBRISCOPE_INSTANTIATE(float)
RUBRISCOPE_INSTANTIATE(double)
#undef RUBRISCOPE_INSTANTIATE

}  // namespace rubriscope::ops
