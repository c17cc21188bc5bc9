#include "rubriscope/ops/torch/stats.h"

#include <tuple>

namespace rubriscope::ops {

namespace {

std::tuple<Tensor, Tensor> tensor_stats_cpu(const Tensor& t) {
  const StatsType type = stats_type(t);
  const Tensor dense = as_dense(t);
  Tensor moments = empty_beside(t, {4}, ScalarType::Double);
  Tensor counts = empty_beside(t, {4 + kMagnitudeBins}, ScalarType::Long);
  tensor_stats(dense.const_data_ptr(), type, dense.numel(), static_cast<double*>(moments.mutable_data_ptr()),
               static_cast<std::int64_t*>(counts.mutable_data_ptr()), torch_threads());
  return {moments, counts};
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(rubriscope, m) {
  // (mean, variance, least, greatest) and (elements, NaN, Inf, zeros, magnitudes by powers of two).
  m.def("tensor_stats(Tensor t) -> (Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(rubriscope, CPU, m) { m.impl("tensor_stats", TORCH_BOX(&tensor_stats_cpu)); }

}  // namespace rubriscope::ops
