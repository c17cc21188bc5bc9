// What the CPU and the CUDA registration of mlp_jet share: the checks that keep the kernels inside memory.
#pragma once

#include <string>
#include <vector>

#include "rubriscope/ops/jet/mlp.h"
#include "rubriscope/ops/torch/tensors.h"

namespace rubriscope::ops {

inline Activation activation_of(const std::string& name) {
  if (name == "tanh") return Activation::tanh;
  if (name == "silu") return Activation::silu;
  if (name == "sin") return Activation::sin;
  if (name == "gelu") return Activation::gelu;
  STD_TORCH_CHECK(false, "activation is '", name, "', expected tanh, silu, sin or gelu");
}

/// The arguments of one call, checked; it holds the contiguous tensors the pointers lead into.
struct JetCall {
  JetCall(const Tensor& points, const Tensor& parameters, std::vector<std::int64_t> widths,
          const std::string& activation, const Tensor& directions, std::vector<std::int64_t> orders,
          std::vector<double> collapse, std::vector<double> drift)
      : x(as_contiguous(points)),
        parameters(as_contiguous(parameters)),
        directions(as_contiguous(directions)),
        widths(std::move(widths)),
        orders(std::move(orders)),
        collapse(std::move(collapse)),
        drift(std::move(drift)),
        activation(activation_of(activation)) {
    check();
  }

  bool is_double() const { return x.scalar_type() == ScalarType::Double; }
  std::int64_t count() const { return x.size(0); }
  std::int64_t outputs() const { return widths.back(); }

  std::int64_t channels() const {
    std::int64_t found = drift.empty() ? 1 : 2;
    for (const std::int64_t order : orders) found += order;
    return found;
  }

  template <class T>
  MlpJet<T> jet() const {
    return {static_cast<std::int64_t>(widths.size()) - 1,
            widths.data(),
            static_cast<const T*>(parameters.const_data_ptr()),
            activation,
            static_cast<std::int64_t>(orders.size()),
            static_cast<const T*>(directions.const_data_ptr()),
            orders.data(),
            drift.empty() ? nullptr : collapse.data(),
            drift.data()};
  }

  void check_cotangent(const Tensor& bar) const {
    STD_TORCH_CHECK(bar.dim() == 3 && bar.size(0) == channels() && bar.size(1) == count() &&
                        bar.size(2) == outputs() && bar.scalar_type() == x.scalar_type(),
                    "grad is not of the result's shape and dtype");
  }

  const Tensor x, parameters, directions;
  const std::vector<std::int64_t> widths, orders;
  const std::vector<double> collapse, drift;
  const Activation activation;

 private:
  void check() const {
    STD_TORCH_CHECK(x.dim() == 2, "x has ", x.dim(), " dimensions, expected (N, inputs)");
    STD_TORCH_CHECK(x.scalar_type() == ScalarType::Float || x.scalar_type() == ScalarType::Double,
                    "x is neither float32 nor float64");
    STD_TORCH_CHECK(
        parameters.scalar_type() == x.scalar_type() && directions.scalar_type() == x.scalar_type(),
        "parameters or directions have another dtype than x");
    STD_TORCH_CHECK(widths.size() >= 2, "widths has ", widths.size(), " entries, expected at least 2");
    std::int64_t total = 0;
    for (std::size_t l = 0; l < widths.size(); ++l) {
      STD_TORCH_CHECK(widths[l] >= 1 && widths[l] <= (std::int64_t{1} << 24), "widths holds ", widths[l],
                      ", expected 1 to 2^24");
      if (l > 0) total += (widths[l - 1] + 1) * widths[l];
    }
    STD_TORCH_CHECK(x.size(1) == widths[0], "x has ", x.size(1), " columns, expected ", widths[0]);
    STD_TORCH_CHECK(parameters.dim() == 1 && parameters.size(0) == total,
                    "parameters does not have the shape (", total, ",)");
    const std::int64_t count = static_cast<std::int64_t>(orders.size());
    STD_TORCH_CHECK(directions.dim() == 2 && directions.size(0) == count && directions.size(1) == widths[0],
                    "directions does not have the shape (", count, ", ", widths[0], ")");
    for (const std::int64_t order : orders) {
      STD_TORCH_CHECK(order >= 1 && order <= kMaxOrder, "orders holds ", order, ", expected 1 to ",
                      kMaxOrder);
    }
    STD_TORCH_CHECK(collapse.size() == (drift.empty() ? 0 : orders.size()), "collapse has ", collapse.size(),
                    " entries, expected one per direction with drift and none without");
    STD_TORCH_CHECK(drift.empty() || static_cast<std::int64_t>(drift.size()) == widths[0], "drift has ",
                    drift.size(), " entries, expected ", widths[0]);
  }
};

}  // namespace rubriscope::ops
