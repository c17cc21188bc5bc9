#include "rubriscope/ops/rubrics.h"

#include <algorithm>
#include <cmath>

#include "rubriscope/core/errors.h"
#include "rubriscope/ops/hausdorff/hausdorff.h"
#include "rubriscope/ops/stencil/kernels.h"

namespace rubriscope {

namespace {

const TensorView* single(const Value& value) {
  const TensorViews* const tensors = value.get<TensorViews>();
  return tensors != nullptr && tensors->items.size() == 1 ? &tensors->items[0] : nullptr;
}

}  // namespace

ScoreMap::ScoreMap(std::string_view name, double at_limit) : shape(Shape::linear), limit(at_limit) {
  if (name == "exponential") {
    shape = Shape::exponential;
  } else if (name != "linear") {
    throw ValueError("shape is '" + std::string(name) + "', expected 'linear' or 'exponential'");
  }
  if (!(limit > 0) || std::isinf(limit)) {
    throw ValueError("limit is " + std::to_string(limit) + ", expected a positive finite number");
  }
}

double ScoreMap::operator()(double distance) const {
  if (std::isnan(distance)) return distance;
  return shape == Shape::linear ? std::max(0.0, 1.0 - distance / limit) : std::exp(-distance / limit);
}

// ---- Hausdorff

HausdorffRubric::HausdorffRubric(ScoreMap map, Options options, std::optional<std::vector<double>> target,
                                 std::int64_t dimensions)
    : map_(map), options_(options), target_(std::move(target)), dimensions_(dimensions) {
  if (target_) target_float_.assign(target_->begin(), target_->end());
}

bool HausdorffRubric::takes(const Value& action, const Value& observation) const {
  const TensorView* const x = single(action);
  if (x == nullptr || x->rank != 2) return false;
  if (target_) return x->shape[1] == dimensions_;
  const TensorView* const y = single(observation);
  return y != nullptr && y->rank == 2 && y->dtype == x->dtype && y->shape[1] == x->shape[1] &&
         x->shape[1] > 0;
}

template <class Real>
double HausdorffRubric::distance(const TensorView& x, const Real* y, std::int64_t y_count) const {
  const ops::PointSet<Real> points{static_cast<const Real*>(x.data), x.shape[0]};
  const ops::PointSet<Real> others{y, y_count};
  const bool symmetric = !options_.directed;
  const ops::Parallel& parallel = ops::default_parallel();
  if (!options_.reduction) return ops::hausdorff(points, others, x.shape[1], symmetric, parallel).distance;
  ops::Neighbours of_x, of_y;
  ops::nearest_neighbours(points, others, x.shape[1], symmetric, parallel, &of_x, &of_y);
  return ops::reduce_neighbours(of_x, symmetric ? &of_y : nullptr, *options_.reduction, options_.percentile,
                                nullptr, nullptr);
}

Score HausdorffRubric::forward(const Value& action, const Value& observation) {
  if (!takes(action, observation)) {
    throw ValueError("HausdorffRubric takes points (N, D) on the CPU, of one dtype and dimension");
  }
  const TensorView& x = *single(action);
  if (x.dtype == Dtype::float32) {
    if (target_) {
      return map_(
          distance(x, target_float_.data(), static_cast<std::int64_t>(target_float_.size()) / dimensions_));
    }
    const TensorView& y = *single(observation);
    return map_(distance(x, static_cast<const float*>(y.data), y.shape[0]));
  }
  if (target_) {
    return map_(distance(x, target_->data(), static_cast<std::int64_t>(target_->size()) / dimensions_));
  }
  const TensorView& y = *single(observation);
  return map_(distance(x, static_cast<const double*>(y.data), y.shape[0]));
}

// ---- Residuals

PhysicsResidualRubric::PhysicsResidualRubric(ScoreMap map, std::unique_ptr<ops::stencil::Program> program,
                                             std::vector<std::int64_t> grid, bool observed)
    : map_(map), prepared_(std::move(program)), grid_(std::move(grid)), observed_(observed) {
  const ops::stencil::Program& of = *prepared_.program();
  if (of.params_used != 0 || of.cotangents_used != 0 || of.sums != of.components) {
    throw ValueError("code is no program of a loss without tensors as parameters");
  }
}

std::vector<TensorView> PhysicsResidualRubric::fields(const Value& action, const Value& observation) const {
  std::vector<TensorView> found;
  const auto add = [&](const Value& value) {
    const TensorViews* const tensors = value.get<TensorViews>();
    if (tensors == nullptr) return false;
    found.insert(found.end(), tensors->items.begin(), tensors->items.end());
    return true;
  };
  if ((observed_ && !add(observation)) || !add(action)) return {};
  return found;
}

bool PhysicsResidualRubric::takes(const Value& action, const Value& observation) const {
  const std::vector<TensorView> given = fields(action, observation);
  return static_cast<int>(given.size()) == prepared_.program()->inputs_used &&
         std::all_of(given.begin(), given.end(), [&](const TensorView& field) {
           return field.dtype == given[0].dtype && field.rank == static_cast<int>(grid_.size()) &&
                  std::equal(grid_.begin(), grid_.end(), field.shape.begin());
         });
}

template <class Real>
double PhysicsResidualRubric::mean_square(const std::vector<TensorView>& fields) const {
  std::vector<const Real*> inputs;
  for (const TensorView& field : fields) inputs.push_back(static_cast<const Real*>(field.data));
  const ops::stencil::Program& of = *prepared_.program();
  std::vector<double> sums(static_cast<std::size_t>(of.sums) + 1);
  prepared_.sweep<Real>(ops::default_parallel(), {1, inputs.data(), nullptr, nullptr, nullptr}, 1.0, nullptr,
                        sums.data());
  double total = 0;
  for (int s = 0; s < of.components; ++s) total += sums[static_cast<std::size_t>(s)];
  return total / (static_cast<double>(of.components) * static_cast<double>(fields[0].count()));
}

Score PhysicsResidualRubric::forward(const Value& action, const Value& observation) {
  if (!takes(action, observation)) {
    throw ValueError(
        "PhysicsResidualRubric takes the equation's fields on its grid, on the CPU and of one dtype");
  }
  const std::vector<TensorView> given = fields(action, observation);
  const double square =
      given[0].dtype == Dtype::float32 ? mean_square<float>(given) : mean_square<double>(given);
  return map_(std::sqrt(square));
}

}  // namespace rubriscope
