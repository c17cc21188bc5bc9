// Rubrics over the kernels: tensors on the CPU are scored in C++, without the GIL.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "rubriscope/ops/hausdorff/reduce.h"
#include "rubriscope/ops/stencil/kernels.h"
#include "rubriscope/ops/tensor_view.h"
#include "rubriscope/rubric/rubric.h"

namespace rubriscope {

/// How a distance or a residual becomes a score in [0, 1]: linear, max(0, 1 − d / limit), or exponential,
/// exp(−d / limit). An infinite one is 0; NaN stays NaN.
struct ScoreMap {
  enum class Shape { linear, exponential };

  /// Throws ValueError unless shape is "linear" or "exponential" and 0 < limit < ∞.
  ScoreMap(std::string_view shape, double limit);
  double operator()(double distance) const;

  Shape shape;
  double limit;
};

/// A rubric that scores some tensors here and leaves others (on a device, of half types) to its caller.
class TensorRubric : public Rubric {
 public:
  /// Whether forward() takes these.
  virtual bool takes(const Value& action, const Value& observation) const = 0;
};

/// Scores a point set by its Hausdorff distance to another: of the action (N, D) to the target, or to the
/// observation (M, D) where no target is given.
class HausdorffRubric final : public TensorRubric {
 public:
  struct Options {
    /// nullopt: the maximum.
    std::optional<ops::PointReduction> reduction;
    double percentile{95};
    bool directed{false};
  };

  /// `target`, where given, holds `target_count` rows of `dimensions` numbers.
  HausdorffRubric(ScoreMap map, Options options, std::optional<std::vector<double>> target,
                  std::int64_t dimensions);

  bool takes(const Value& action, const Value& observation) const override;

 protected:
  /// Throws ValueError for tensors that it does not take.
  Score forward(const Value& action, const Value& observation) override;

 private:
  template <class Real>
  double distance(const TensorView& x, const Real* y, std::int64_t y_count) const;

  ScoreMap map_;
  Options options_;
  std::optional<std::vector<double>> target_;
  std::vector<float> target_float_;
  std::int64_t dimensions_;  // of the target
};

/// Scores fields by the root of the mean squared residual of an equation, all components and points together.
class PhysicsResidualRubric final : public TensorRubric {
 public:
  /// A program of rubriscope.ops.physics for fields of this grid, without tensors as parameters. The fields
  /// are the action's, with `observed` the observation's before them.
  PhysicsResidualRubric(ScoreMap map, std::unique_ptr<ops::stencil::Program> program,
                        std::vector<std::int64_t> grid, bool observed);

  bool takes(const Value& action, const Value& observation) const override;

 protected:
  /// Throws ValueError for tensors that it does not take.
  Score forward(const Value& action, const Value& observation) override;

 private:
  std::vector<TensorView> fields(const Value& action, const Value& observation) const;
  template <class Real>
  double mean_square(const std::vector<TensorView>& fields) const;

  ScoreMap map_;
  ops::stencil::Prepared prepared_;
  std::vector<std::int64_t> grid_;
  bool observed_;
};

}  // namespace rubriscope
