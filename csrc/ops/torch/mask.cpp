#include <string>
#include <vector>

#include "rubriscope/ops/torch/mask.h"
#include "rubriscope/ops/torch/tensors.h"

namespace rubriscope::ops {

namespace {

Tensor mask_distance_cpu(const Tensor& prediction, const Tensor& target, std::vector<double> spacing,
                         double percentile, bool directed, std::string metric, std::string convention) {
  const MaskCall call = mask_call(prediction, target, spacing, percentile, directed, metric, convention);
  const Tensor pred = as_contiguous(prediction), goal = as_contiguous(target);
  Tensor out = mask_output(prediction, spacing.size());
  mask_distance(static_cast<const std::uint8_t*>(pred.const_data_ptr()),
                static_cast<const std::uint8_t*>(goal.const_data_ptr()), call.shape, call.options,
                static_cast<double*>(out.mutable_data_ptr()), torch_threads());
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(rubriscope, m) {
  // percentile: negative for the maximum. The masks have one byte a voxel; as many spatial axes as spacings.
  m.def(
      "mask_distance(Tensor pred, Tensor target, float[] spacing, float percentile, bool directed, str "
      "metric, "
      "str convention) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(rubriscope, CPU, m) { m.impl("mask_distance", TORCH_BOX(&mask_distance_cpu)); }

}  // namespace rubriscope::ops
