// CUDA kernels of torch.ops.rubriscope.hausdorff_*: scratch memory and launches.
#include "../hausdorff.h"

#include <limits>
#include <string>
#include <tuple>

#include "rubriscope/ops/hausdorff/reduce.h"
#include "rubriscope/ops/torch/hausdorff_args.h"
#include "stream.h"

namespace rubriscope::cuda {

namespace {

using ops::empty_beside;
using ops::PointArgs;
using ops::ScalarType;
using ops::Tensor;

/// A call's arguments, and its value; the rest is filled in by who calls.
struct Call {
  RubriscopeHausdorff launch{};
  Tensor value;

  Call(const PointArgs& args, bool symmetric, int reduction, double percentile)
      : value(empty_beside(args.x, {args.batch})) {
    launch.x = args.x.const_data_ptr();
    launch.y = args.y.const_data_ptr();
    launch.x_lengths = args.x_lengths.data();
    launch.y_lengths = args.y_lengths.data();
    launch.batch = args.batch;
    launch.n = args.x.size(1);
    launch.m = args.y.size(1);
    launch.dimensions = args.dimensions;
    launch.is_double = args.x.scalar_type() == ScalarType::Double;
    launch.symmetric = symmetric;
    launch.reduction = reduction;
    launch.percentile = percentile;
    launch.value = value.mutable_data_ptr();
  }

  /// With scratch memory of torch's allocator, which gives it to nobody else before the stream is done with
  /// it.
  void run(const PointArgs& args, const StreamOf& stream, const char* what) {
    std::size_t bytes = 0;
    check(rubriscope_hausdorff_scratch_bytes(&launch, &bytes), what);
    Tensor scratch = empty_beside(args.x, {static_cast<std::int64_t>(bytes)}, ScalarType::Byte);
    launch.scratch = scratch.mutable_data_ptr();
    check(rubriscope_hausdorff(&launch, stream), what);
  }
};

std::tuple<Tensor, Tensor, Tensor> hausdorff_max(const Tensor& x, const Tensor& y,
                                                 std::optional<Tensor> x_lengths,
                                                 std::optional<Tensor> y_lengths, bool symmetric) {
  const PointArgs args(x, y, x_lengths, y_lengths);
  const StreamOf stream(args.x);
  Tensor index_x = empty_beside(args.x, {args.batch}, ScalarType::Long);
  Tensor index_y = empty_beside(args.x, {args.batch}, ScalarType::Long);
  Call call(args, symmetric, -1, 0);
  call.launch.index_x = index_x.mutable_data_ptr<std::int64_t>();
  call.launch.index_y = index_y.mutable_data_ptr<std::int64_t>();
  call.run(args, stream, "hausdorff_max");
  return {call.value, index_x, index_y};
}

int reduction_of(const std::string& name) {
  using ops::PointReduction;
  if (name == "percentile") return static_cast<int>(PointReduction::percentile);
  if (name == "mean") return static_cast<int>(PointReduction::mean);
  if (name == "modified") return static_cast<int>(PointReduction::modified);
  if (name == "chamfer") return static_cast<int>(PointReduction::chamfer);
  STD_TORCH_CHECK(name == "chamfer_squared", "reduction is '", name,
                  "', expected percentile, mean, modified, chamfer or chamfer_squared");
  return static_cast<int>(PointReduction::chamfer_squared);
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> hausdorff_reduce(const Tensor& x, const Tensor& y,
                                                                    std::optional<Tensor> x_lengths,
                                                                    std::optional<Tensor> y_lengths,
                                                                    std::string reduction, double percentile,
                                                                    bool symmetric) {
  const PointArgs args(x, y, x_lengths, y_lengths);
  ops::check_percentile(percentile);
  const int kind = reduction_of(reduction);
  const StreamOf stream(args.x);
  const std::int64_t n = args.x.size(1), m = args.y.size(1);
  Tensor near_x = empty_beside(args.x, {args.batch, n}, ScalarType::Long);
  Tensor near_y = empty_beside(args.x, {args.batch, m}, ScalarType::Long);
  Tensor weight_x = empty_beside(args.x, {args.batch, n}, ScalarType::Double);
  Tensor weight_y = empty_beside(args.x, {args.batch, m}, ScalarType::Double);
  Call call(args, symmetric, kind, percentile);
  call.launch.near_x = near_x.mutable_data_ptr<std::int64_t>();
  call.launch.near_y = near_y.mutable_data_ptr<std::int64_t>();
  call.launch.weight_x = weight_x.mutable_data_ptr<double>();
  call.launch.weight_y = weight_y.mutable_data_ptr<double>();
  call.run(args, stream, "hausdorff_reduce");
  return {call.value, near_x, near_y, weight_x, weight_y};
}

Tensor hausdorff_reduce_plain(const Tensor& x, const Tensor& y, std::optional<Tensor> x_lengths,
                              std::optional<Tensor> y_lengths, std::string reduction, double percentile,
                              bool symmetric) {
  const PointArgs args(x, y, x_lengths, y_lengths);
  ops::check_percentile(percentile);
  const StreamOf stream(args.x);
  Call call(args, symmetric, reduction_of(reduction), percentile);
  call.run(args, stream, "hausdorff_reduce");
  return call.value;
}

/// The gradient of one set's rows.
Tensor backward(const Tensor& gradient, const Tensor& a, const Tensor& b, const Tensor& near_a,
                const Tensor& near_b, const Tensor& weight_a, const Tensor& weight_b, bool squared,
                cudaStream_t stream) {
  const std::int64_t batch = a.size(0), n = a.size(1), m = b.size(1), d = a.size(2);
  STD_TORCH_CHECK(batch * m < std::numeric_limits<std::uint32_t>::max(), "the batch holds ", batch * m,
                  " points, more than the backward counts");
  Tensor out = empty_beside(a, {batch, n, d});
  Tensor sums = empty_beside(a, {batch, n, d}, ScalarType::Double);
  Tensor keys = empty_beside(a, {2 * batch * m}, ScalarType::Long);
  Tensor values = empty_beside(a, {2 * batch * m}, ScalarType::Int);
  std::size_t bytes = 0;
  check(rubriscope_hausdorff_sorting_bytes(batch * m, &bytes), "hausdorff_reduce_backward");
  Tensor sorting = empty_beside(a, {static_cast<std::int64_t>(bytes)}, ScalarType::Byte);
  RubriscopeHausdorffBackward launch{};
  launch.a = a.const_data_ptr();
  launch.b = b.const_data_ptr();
  launch.batch = batch;
  launch.n = n;
  launch.m = m;
  launch.dimensions = d;
  launch.is_double = a.scalar_type() == ScalarType::Double;
  launch.squared = squared;
  launch.gradient = gradient.const_data_ptr();
  launch.near_a = near_a.const_data_ptr<std::int64_t>();
  launch.near_b = near_b.const_data_ptr<std::int64_t>();
  launch.weight_a = weight_a.const_data_ptr<double>();
  launch.weight_b = weight_b.const_data_ptr<double>();
  launch.keys = reinterpret_cast<std::uint64_t*>(keys.mutable_data_ptr<std::int64_t>());
  launch.values = reinterpret_cast<std::uint32_t*>(values.mutable_data_ptr<std::int32_t>());
  launch.sorting = sorting.mutable_data_ptr();
  launch.sorting_bytes = bytes;
  launch.sums = sums.mutable_data_ptr<double>();
  launch.out = out.mutable_data_ptr();
  check(rubriscope_hausdorff_backward(&launch, stream), "hausdorff_reduce_backward");
  return out;
}

std::tuple<Tensor, Tensor> hausdorff_reduce_backward(const Tensor& grad, const Tensor& x, const Tensor& y,
                                                     const Tensor& near_x, const Tensor& near_y,
                                                     const Tensor& weight_x, const Tensor& weight_y,
                                                     bool squared) {
  const ops::BackwardArgs args(grad, x, y, near_x, near_y, weight_x, weight_y);
  const StreamOf stream(args.x);
  return {backward(args.grad, args.x, args.y, args.near_x, args.near_y, args.weight_x, args.weight_y, squared,
                   stream),
          backward(args.grad, args.y, args.x, args.near_y, args.near_x, args.weight_y, args.weight_x, squared,
                   stream)};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(rubriscope, CUDA, m) {
  m.impl("hausdorff_max", TORCH_BOX(&hausdorff_max));
  m.impl("hausdorff_max.plain", TORCH_BOX(&hausdorff_max));
  m.impl("hausdorff_reduce", TORCH_BOX(&hausdorff_reduce));
  m.impl("hausdorff_reduce.plain", TORCH_BOX(&hausdorff_reduce_plain));
  m.impl("hausdorff_reduce_backward", TORCH_BOX(&hausdorff_reduce_backward));
}

}  // namespace rubriscope::cuda
