// torch.ops.rubriscope.hausdorff_*: schemas and CPU kernels. What the results mean: rubriscope.ops.hausdorff.
#include <limits>
#include <string>
#include <tuple>

#include "rubriscope/ops/hausdorff/hausdorff.h"
#include "rubriscope/ops/hausdorff/reduce.h"
#include "rubriscope/ops/torch/hausdorff_args.h"
#include "rubriscope/ops/torch/tensors.h"

namespace rubriscope::ops {

namespace {

/// The threads for the batch's items, and those for the work inside one.
struct Split {
  const Parallel& items;
  const Parallel& inside;
};

Split split(std::int64_t batch) {
  const Parallel& threads = torch_threads();
  return batch >= 2 * threads.threads() ? Split{threads, serial()} : Split{serial(), threads};
}

/// One item's points of a contiguous batch.
template <class Real>
PointSet<Real> item(const Tensor& points, const PointLengths& lengths, std::int64_t b) {
  const std::int64_t rows = points.size(1);
  return {points.const_data_ptr<Real>() + b * rows * points.size(2), lengths.of(b, rows)};
}

template <class Real>
void run_max(const PointArgs& args, bool symmetric, Tensor& distance, Tensor& index_x, Tensor& index_y) {
  const Split threads = split(args.batch);
  auto* const value = distance.mutable_data_ptr<Real>();
  auto* const at_x = index_x.mutable_data_ptr<std::int64_t>();
  auto* const at_y = index_y.mutable_data_ptr<std::int64_t>();
  for_pieces(threads.items, args.batch, 1, [&](std::int64_t b, std::int64_t) {
    const HausdorffPair pair =
        hausdorff(item<Real>(args.x, args.x_lengths, b), item<Real>(args.y, args.y_lengths, b),
                  args.dimensions, symmetric, threads.inside);
    value[b] = static_cast<Real>(pair.distance);
    at_x[b] = pair.x;
    at_y[b] = pair.y;
  });
}

std::tuple<Tensor, Tensor, Tensor> hausdorff_max(const Tensor& x, const Tensor& y,
                                                 std::optional<Tensor> x_lengths,
                                                 std::optional<Tensor> y_lengths, bool symmetric) {
  const PointArgs args(x, y, x_lengths, y_lengths);
  args.check_lengths();
  Tensor distance = empty_beside(args.x, {args.batch});
  Tensor index_x = empty_beside(args.x, {args.batch}, ScalarType::Long);
  Tensor index_y = empty_beside(args.x, {args.batch}, ScalarType::Long);
  if (args.x.scalar_type() == ScalarType::Float) {
    run_max<float>(args, symmetric, distance, index_x, index_y);
  } else {
    run_max<double>(args, symmetric, distance, index_x, index_y);
  }
  return {distance, index_x, index_y};
}

PointReduction reduction_of(const std::string& name) {
  if (name == "percentile") return PointReduction::percentile;
  if (name == "mean") return PointReduction::mean;
  if (name == "modified") return PointReduction::modified;
  if (name == "chamfer") return PointReduction::chamfer;
  STD_TORCH_CHECK(name == "chamfer_squared", "reduction is '", name,
                  "', expected percentile, mean, modified, chamfer or chamfer_squared");
  return PointReduction::chamfer_squared;
}

/// What the backward of a reduction needs, one row an item.
struct Saved {
  Tensor near_x, near_y, weight_x, weight_y;

  explicit Saved(const PointArgs& args)
      : near_x(empty_beside(args.x, {args.batch, args.x.size(1)}, ScalarType::Long)),
        near_y(empty_beside(args.x, {args.batch, args.y.size(1)}, ScalarType::Long)),
        weight_x(empty_beside(args.x, {args.batch, args.x.size(1)}, ScalarType::Double)),
        weight_y(empty_beside(args.x, {args.batch, args.y.size(1)}, ScalarType::Double)) {}
};

/// One item's neighbours into its row: -1 behind them and where there are none.
void save(const Neighbours& neighbours, std::int64_t rows, std::int64_t* near, double* weight) {
  const auto found = static_cast<std::int64_t>(neighbours.nearest.size());
  std::copy(neighbours.nearest.begin(), neighbours.nearest.end(), near);
  std::fill(near + found, near + rows, -1);
  std::fill(weight + found, weight + rows, 0.0);
}

template <class Real>
Tensor run_reduce(const PointArgs& args, PointReduction reduction, double percentile, bool symmetric,
                  Saved* saved) {
  const Split threads = split(args.batch);
  Tensor out = empty_beside(args.x, {args.batch});
  auto* const value = out.mutable_data_ptr<Real>();
  const std::int64_t rows_x = args.x.size(1), rows_y = args.y.size(1);
  for_pieces(threads.items, args.batch, 1, [&](std::int64_t b, std::int64_t) {
    Neighbours of_x, of_y;
    nearest_neighbours(item<Real>(args.x, args.x_lengths, b), item<Real>(args.y, args.y_lengths, b),
                       args.dimensions, symmetric, threads.inside, &of_x, &of_y);
    double *weight_x = nullptr, *weight_y = nullptr;
    if (saved != nullptr) {
      weight_x = saved->weight_x.mutable_data_ptr<double>() + b * rows_x;
      weight_y = saved->weight_y.mutable_data_ptr<double>() + b * rows_y;
      save(of_x, rows_x, saved->near_x.mutable_data_ptr<std::int64_t>() + b * rows_x, weight_x);
      save(of_y, rows_y, saved->near_y.mutable_data_ptr<std::int64_t>() + b * rows_y, weight_y);
    }
    value[b] = static_cast<Real>(
        reduce_neighbours(of_x, symmetric ? &of_y : nullptr, reduction, percentile, weight_x, weight_y));
  });
  return out;
}

Tensor reduce(const PointArgs& args, const std::string& reduction, double percentile, bool symmetric,
              Saved* saved) {
  args.check_lengths();
  check_percentile(percentile);
  const PointReduction kind = reduction_of(reduction);
  return args.x.scalar_type() == ScalarType::Float
             ? run_reduce<float>(args, kind, percentile, symmetric, saved)
             : run_reduce<double>(args, kind, percentile, symmetric, saved);
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> hausdorff_reduce(const Tensor& x, const Tensor& y,
                                                                    std::optional<Tensor> x_lengths,
                                                                    std::optional<Tensor> y_lengths,
                                                                    std::string reduction, double percentile,
                                                                    bool symmetric) {
  const PointArgs args(x, y, x_lengths, y_lengths);
  Saved saved(args);
  const Tensor value = reduce(args, reduction, percentile, symmetric, &saved);
  return {value, saved.near_x, saved.near_y, saved.weight_x, saved.weight_y};
}

Tensor hausdorff_reduce_plain(const Tensor& x, const Tensor& y, std::optional<Tensor> x_lengths,
                              std::optional<Tensor> y_lengths, std::string reduction, double percentile,
                              bool symmetric) {
  return reduce(PointArgs(x, y, x_lengths, y_lengths), reduction, percentile, symmetric, nullptr);
}

template <class Real>
void run_backward(const BackwardArgs& args, bool squared, Tensor& grad_x, Tensor& grad_y) {
  const std::int64_t n = args.x.size(1), m = args.y.size(1), d = args.x.size(2);
  // Two tasks an item: the rows of x, and those of y.
  for_pieces(torch_threads(), 2 * args.x.size(0), 1, [&](std::int64_t task, std::int64_t) {
    const std::int64_t b = task / 2;
    const Real* const x = args.x.const_data_ptr<Real>() + b * n * d;
    const Real* const y = args.y.const_data_ptr<Real>() + b * m * d;
    const std::int64_t* const near_x = args.near_x.const_data_ptr<std::int64_t>() + b * n;
    const std::int64_t* const near_y = args.near_y.const_data_ptr<std::int64_t>() + b * m;
    const double* const weight_x = args.weight_x.const_data_ptr<double>() + b * n;
    const double* const weight_y = args.weight_y.const_data_ptr<double>() + b * m;
    const auto gradient = static_cast<double>(args.grad.const_data_ptr<Real>()[b]);
    if (task % 2 == 0) {
      neighbours_backward(x, n, y, m, d, near_x, weight_x, near_y, weight_y, squared, gradient,
                          grad_x.mutable_data_ptr<Real>() + b * n * d);
    } else {
      neighbours_backward(y, m, x, n, d, near_y, weight_y, near_x, weight_x, squared, gradient,
                          grad_y.mutable_data_ptr<Real>() + b * m * d);
    }
  });
}

std::tuple<Tensor, Tensor> hausdorff_reduce_backward(const Tensor& grad, const Tensor& x, const Tensor& y,
                                                     const Tensor& near_x, const Tensor& near_y,
                                                     const Tensor& weight_x, const Tensor& weight_y,
                                                     bool squared) {
  const BackwardArgs args(grad, x, y, near_x, near_y, weight_x, weight_y);
  Tensor grad_x = empty_beside(args.x, {x.size(0), x.size(1), x.size(2)});
  Tensor grad_y = empty_beside(args.y, {y.size(0), y.size(1), y.size(2)});
  if (x.scalar_type() == ScalarType::Float) {
    run_backward<float>(args, squared, grad_x, grad_y);
  } else {
    run_backward<double>(args, squared, grad_x, grad_y);
  }
  return {grad_x, grad_y};
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(rubriscope, m) {
  m.def(
      "hausdorff_max(Tensor x, Tensor y, Tensor? x_lengths, Tensor? y_lengths, bool symmetric) "
      "-> (Tensor, Tensor, Tensor)");
  m.def(
      "hausdorff_max.plain(Tensor x, Tensor y, Tensor? x_lengths, Tensor? y_lengths, bool symmetric) "
      "-> (Tensor, Tensor, Tensor)");
  m.def(
      "hausdorff_reduce(Tensor x, Tensor y, Tensor? x_lengths, Tensor? y_lengths, str reduction, float "
      "percentile, "
      "bool symmetric) -> (Tensor, Tensor, Tensor, Tensor, Tensor)");
  m.def(
      "hausdorff_reduce.plain(Tensor x, Tensor y, Tensor? x_lengths, Tensor? y_lengths, str reduction, "
      "float percentile, bool symmetric) -> Tensor");
  m.def(
      "hausdorff_reduce_backward(Tensor grad, Tensor x, Tensor y, Tensor near_x, Tensor near_y, Tensor "
      "weight_x, "
      "Tensor weight_y, bool squared) -> (Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(rubriscope, CPU, m) {
  m.impl("hausdorff_max", TORCH_BOX(&hausdorff_max));
  m.impl("hausdorff_max.plain", TORCH_BOX(&hausdorff_max));
  m.impl("hausdorff_reduce", TORCH_BOX(&hausdorff_reduce));
  m.impl("hausdorff_reduce.plain", TORCH_BOX(&hausdorff_reduce_plain));
  m.impl("hausdorff_reduce_backward", TORCH_BOX(&hausdorff_reduce_backward));
}

}  // namespace rubriscope::ops
