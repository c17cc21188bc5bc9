#include "../stats.h"

#include <algorithm>
#include <tuple>

#include "rubriscope/ops/torch/stats.h"
#include "stream.h"

namespace rubriscope::cuda {

namespace {

using ops::ScalarType;
using torch::stable::Tensor;

std::tuple<Tensor, Tensor> tensor_stats_cuda(const Tensor& t) {
  const ops::StatsType type = ops::stats_type(t);
  const StreamOf stream(t);
  const Tensor dense = ops::as_dense(t);
  const std::int64_t pieces = std::max<std::int64_t>(1, rubriscope_stats_pieces(dense.numel()));
  Tensor moments = ops::empty_beside(t, {4}, ScalarType::Double);
  Tensor counts = ops::empty_beside(t, {4 + ops::kMagnitudeBins}, ScalarType::Long);
  Tensor scratch = ops::empty_beside(t, {pieces, kRubriscopeStatsScratch}, ScalarType::Double);
  check(rubriscope_tensor_stats(dense.const_data_ptr(), static_cast<int>(type), dense.numel(),
                                static_cast<double*>(scratch.mutable_data_ptr()),
                                static_cast<double*>(moments.mutable_data_ptr()),
                                static_cast<std::int64_t*>(counts.mutable_data_ptr()), stream),
        "tensor_stats");
  return {moments, counts};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(rubriscope, CUDA, m) { m.impl("tensor_stats", TORCH_BOX(&tensor_stats_cuda)); }

}  // namespace rubriscope::cuda
