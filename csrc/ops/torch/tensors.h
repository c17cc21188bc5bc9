// What every operator's registration needs: torch's threads, checked and contiguous tensors.
// Only torch's stable ABI (target 2.10) is used, so one build serves later releases.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include "rubriscope/ops/parallel.h"

namespace rubriscope::ops {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

/// The threads torch is allowed (torch.set_num_threads), one inside a parallel region of its own.
const Parallel& torch_threads();

/// The tensor itself where it is contiguous, else a contiguous copy.
inline Tensor as_contiguous(const Tensor& tensor) {
  return tensor.is_contiguous() ? tensor : torch::stable::contiguous(tensor);
}

/// A new CPU or CUDA tensor like `like`, of another shape and possibly dtype.
inline Tensor empty_beside(const Tensor& like, std::initializer_list<std::int64_t> shape,
                           std::optional<ScalarType> dtype = std::nullopt) {
  return torch::stable::new_empty(like, torch::headeronly::IntHeaderOnlyArrayRef(shape.begin(), shape.size()),
                                  dtype.value_or(like.scalar_type()));
}

}  // namespace rubriscope::ops
