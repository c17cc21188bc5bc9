// Arguments and results of the operator tensor_stats, for its CPU and CUDA registrations.
#pragma once

#include <algorithm>
#include <utility>
#include <vector>

#include "rubriscope/ops/stats/stats.h"
#include "rubriscope/ops/torch/tensors.h"

namespace rubriscope::ops {

inline StatsType stats_type(const Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case ScalarType::Float:
      return StatsType::float32;
    case ScalarType::Double:
      return StatsType::float64;
    case ScalarType::Half:
      return StatsType::float16;
    case ScalarType::BFloat16:
      return StatsType::bfloat16;
    default:
      STD_TORCH_CHECK(false, "tensor_stats: t must be float32, float64, float16 or bfloat16");
  }
}

/// The tensor itself where its elements fill a block of memory, in whatever order; else a contiguous copy.
inline Tensor as_dense(const Tensor& tensor) {
  if (tensor.is_contiguous()) return tensor;
  std::vector<std::pair<std::int64_t, std::int64_t>> axes;
  for (std::int64_t axis = 0; axis < tensor.dim(); ++axis) {
    if (tensor.size(axis) != 1) axes.emplace_back(tensor.stride(axis), tensor.size(axis));
  }
  std::sort(axes.begin(), axes.end());
  std::int64_t expected = 1;
  for (const auto& [stride, size] : axes) {
    if (stride != expected) return torch::stable::contiguous(tensor);
    expected *= size;
  }
  return tensor;
}

}  // namespace rubriscope::ops
