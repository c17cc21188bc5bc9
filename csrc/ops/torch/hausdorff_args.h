// The arguments of torch.ops.rubriscope.hausdorff_*, checked so that no kernel reads out of bounds; for the
// CPU and the CUDA registration.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>

#include "rubriscope/ops/torch/tensors.h"

namespace rubriscope::ops {

inline void check_like(const Tensor& tensor, const char* name, const Tensor& like, const char* like_name) {
  STD_TORCH_CHECK(tensor.device() == like.device(), name, " is on another device than ", like_name);
}

/// How many of an item's rows count.
struct PointLengths {
  std::optional<Tensor> tensor;

  PointLengths(const std::optional<Tensor>& lengths, const char* name, const Tensor& points,
               const char* points_name) {
    if (!lengths) return;
    STD_TORCH_CHECK(lengths->scalar_type() == ScalarType::Long, name, " is not of dtype int64");
    STD_TORCH_CHECK(lengths->dim() == 1 && lengths->size(0) == points.size(0), name, " is not of shape (",
                    points.size(0), ",), the batch of ", points_name);
    check_like(*lengths, name, points, points_name);
    tensor = as_contiguous(*lengths);
  }

  const std::int64_t* data() const { return tensor ? tensor->const_data_ptr<std::int64_t>() : nullptr; }
  std::int64_t of(std::int64_t b, std::int64_t rows) const { return tensor ? data()[b] : rows; }
};

/// Two batches of points, (B, N, D) and (B, M, D), and their lengths.
struct PointArgs {
  Tensor x, y;
  PointLengths x_lengths, y_lengths;
  std::int64_t batch, dimensions;

  PointArgs(const Tensor& x_in, const Tensor& y_in, const std::optional<Tensor>& lengths_x,
            const std::optional<Tensor>& lengths_y)
      : x(checked(x_in, "x")),
        y(checked(y_in, "y")),
        x_lengths(lengths_x, "x_lengths", x, "x"),
        y_lengths(lengths_y, "y_lengths", y, "y"),
        batch(x.size(0)),
        dimensions(x.size(2)) {
    STD_TORCH_CHECK(y.scalar_type() == x.scalar_type(), "y is of another dtype than x");
    check_like(y, "y", x, "x");
    STD_TORCH_CHECK(y.size(0) == batch, "y holds ", y.size(0), " items, expected ", batch, " as x does");
    STD_TORCH_CHECK(y.size(2) == dimensions, "y has ", y.size(2), " coordinates a point, expected ",
                    dimensions, " as x has");
    STD_TORCH_CHECK(dimensions >= 1, "x has points without coordinates");
  }

  /// Throws unless all lengths lie within their sets. Reads them: on the CPU only.
  void check_lengths() const {
    check(x_lengths, "x_lengths", x.size(1));
    check(y_lengths, "y_lengths", y.size(1));
  }

 private:
  static Tensor checked(const Tensor& points, const char* name) {
    STD_TORCH_CHECK(points.dim() == 3, name, " has ", points.dim(), " dimensions, expected 3: (B, N, D)");
    STD_TORCH_CHECK(points.scalar_type() == ScalarType::Float || points.scalar_type() == ScalarType::Double,
                    name, " is neither float32 nor float64");
    STD_TORCH_CHECK(points.size(1) < std::numeric_limits<std::int32_t>::max() - 16, name, " holds ",
                    points.size(1), " points, more than an int32 counts");
    return as_contiguous(points);
  }

  void check(const PointLengths& lengths, const char* name, std::int64_t rows) const {
    for (std::int64_t b = 0; lengths.tensor && b < batch; ++b) {
      const std::int64_t length = lengths.of(b, rows);
      STD_TORCH_CHECK(length >= 0 && length <= rows, name, " holds ", length, ", expected 0 to ", rows);
    }
  }
};

inline void check_percentile(double percentile) {
  STD_TORCH_CHECK(percentile >= 0 && percentile <= 100, "percentile is ", percentile, ", expected 0 to 100");
}

struct BackwardArgs {
  Tensor grad, x, y, near_x, near_y, weight_x, weight_y;

  BackwardArgs(const Tensor& grad_in, const Tensor& x_in, const Tensor& y_in, const Tensor& near_x_in,
               const Tensor& near_y_in, const Tensor& weight_x_in, const Tensor& weight_y_in)
      : grad(as_contiguous(grad_in)),
        x(PointArgs(x_in, y_in, std::nullopt, std::nullopt).x),
        y(as_contiguous(y_in)),
        near_x(as_contiguous(near_x_in)),
        near_y(as_contiguous(near_y_in)),
        weight_x(as_contiguous(weight_x_in)),
        weight_y(as_contiguous(weight_y_in)) {
    STD_TORCH_CHECK(grad.dim() == 1 && grad.size(0) == x.size(0) && grad.scalar_type() == x.scalar_type(),
                    "grad is not one number of x's dtype an item");
    check_like(grad, "grad", x, "x");
    check_rows(near_x, "near_x", x, ScalarType::Long);
    check_rows(near_y, "near_y", y, ScalarType::Long);
    check_rows(weight_x, "weight_x", x, ScalarType::Double);
    check_rows(weight_y, "weight_y", y, ScalarType::Double);
  }

 private:
  static void check_rows(const Tensor& tensor, const char* name, const Tensor& points, ScalarType dtype) {
    STD_TORCH_CHECK(tensor.dim() == 2 && tensor.size(0) == points.size(0) &&
                        tensor.size(1) == points.size(1) && tensor.scalar_type() == dtype,
                    name, " does not hold one number of the right dtype a point");
    check_like(tensor, name, points, "its points");
  }
};

}  // namespace rubriscope::ops
