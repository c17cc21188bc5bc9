#include "rubriscope/ops/mask/percentile.h"

#include <algorithm>
#include <cmath>

namespace rubriscope::ops {

double interpolated_percentile(std::vector<double>& costs, const MaskOptions& options,
                               const MaskSteps& steps) {
  const auto distance = [&](double cost) { return distance_of_cost(options.metric, cost, steps.scale); };
  if (options.percentile < 0) return distance(*std::max_element(costs.begin(), costs.end()));
  const auto count = static_cast<std::int64_t>(costs.size());
  const double position = percentile_position(options.convention, options.percentile, count);
  const auto low = std::clamp<std::int64_t>(static_cast<std::int64_t>(std::floor(position)), 0, count - 1);
  std::nth_element(costs.begin(), costs.begin() + low, costs.end());
  const double below = distance(costs[static_cast<std::size_t>(low)]);
  if (low + 1 == count) return below;
  const double above = distance(*std::min_element(costs.begin() + low + 1, costs.end()));
  return between(below, above, position - static_cast<double>(low));
}

double weighted_percentile(const std::vector<double>& costs, const std::vector<std::uint8_t>& codes,
                           const double* areas, const MaskOptions& options, const MaskSteps& steps) {
  struct Element {
    double cost, area;
  };
  std::vector<Element> elements(costs.size());
  for (std::size_t i = 0; i < costs.size(); ++i) elements[i] = {costs[i], areas[codes[i]]};
  std::sort(elements.begin(), elements.end(), [](const Element& a, const Element& b) {
    return a.cost < b.cost || (a.cost == b.cost && a.area < b.area);
  });
  double total = 0;
  for (const Element& element : elements) total += element.area;
  const double share = options.percentile / 100;
  double sum = 0;
  double cost = elements.back().cost;
  for (const Element& element : elements) {
    sum += element.area;
    if (sum / total >= share) {
      cost = element.cost;
      break;
    }
  }
  return distance_of_cost(options.metric, cost, steps.scale);
}

}  // namespace rubriscope::ops
