// Arguments of the operator mask_distance, checked; for its CPU and CUDA registrations.
#pragma once

#include <string>
#include <vector>

#include "rubriscope/ops/mask/mask.h"
#include "rubriscope/ops/torch/tensors.h"

namespace rubriscope::ops {

struct MaskCall {
  MaskShape shape;
  MaskOptions options;
};

inline MaskCall mask_call(const Tensor& pred, const Tensor& target, const std::vector<double>& spacing,
                          double percentile, bool directed, const std::string& metric,
                          const std::string& convention) {
  const auto byte = [](const Tensor& t) {
    return t.scalar_type() == ScalarType::Bool || t.scalar_type() == ScalarType::Byte;
  };
  const auto spatial = static_cast<std::int64_t>(spacing.size());
  STD_TORCH_CHECK(byte(pred) && byte(target), "mask_distance: pred and target must be bool or uint8 tensors");
  STD_TORCH_CHECK(spatial == 2 || spatial == 3, "mask_distance: spacing has ", spatial,
                  " entries, expected 2 or 3");
  STD_TORCH_CHECK(pred.dim() == spatial || pred.dim() == spatial + 2, "mask_distance: pred has ", pred.dim(),
                  " axes, expected ", spatial, " or ", spatial + 2);
  STD_TORCH_CHECK(target.dim() == pred.dim(), "mask_distance: target has ", target.dim(), " axes, expected ",
                  pred.dim(), " as pred has");
  STD_TORCH_CHECK(pred.device() == target.device(), "mask_distance: pred and target must be on one device");
  MaskCall call{{1, static_cast<int>(spatial), {1, 1, 1}}, {}};
  const std::int64_t batch = pred.dim() - spatial;
  for (std::int64_t axis = 0; axis < pred.dim(); ++axis) {
    STD_TORCH_CHECK(pred.size(axis) == target.size(axis), "mask_distance: target has size ",
                    target.size(axis), " along axis ", axis, ", expected ", pred.size(axis), " as pred has");
    if (axis < batch) {
      call.shape.items *= pred.size(axis);
    } else {
      call.shape.size[3 - spatial + axis - batch] = pred.size(axis);
    }
  }
  call.options.metric = mask_metric(metric);
  call.options.convention = mask_convention(convention);
  call.options.percentile = percentile;
  call.options.directed = directed;
  for (std::int64_t axis = 0; axis < spatial; ++axis) {
    call.options.spacing[3 - spatial + axis] = spacing[static_cast<std::size_t>(axis)];
  }
  // Two dimensions have one plane: the step to another is never taken, and must not spoil integer costs.
  if (spatial == 2) call.options.spacing[0] = call.options.spacing[1];
  check_mask_arguments(call.shape, call.options);
  return call;
}

/// A scalar for one mask, (B, C) for a batch.
inline Tensor mask_output(const Tensor& pred, std::size_t spatial) {
  if (pred.dim() == static_cast<std::int64_t>(spatial)) return empty_beside(pred, {}, ScalarType::Double);
  return empty_beside(pred, {pred.size(0), pred.size(1)}, ScalarType::Double);
}

}  // namespace rubriscope::ops
