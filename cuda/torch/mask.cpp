#include "rubriscope/ops/torch/mask.h"

#include <algorithm>
#include <string>
#include <vector>

#include "../mask.h"
#include "rubriscope/ops/mask/steps.h"
#include "rubriscope/ops/mask/surfel.h"
#include "stream.h"

namespace rubriscope::cuda {

namespace {

using ops::ScalarType;
using torch::stable::Tensor;

RubriscopeMasks masks_of(const ops::MaskCall& call) {
  const ops::MaskSteps steps = ops::mask_steps(call.options);
  const bool corners = call.options.convention == ops::MaskConvention::deepmind;
  RubriscopeMasks masks{};
  masks.dimensions = call.shape.dimensions;
  masks.metric = static_cast<int>(call.options.metric);
  masks.convention = static_cast<int>(call.options.convention);
  masks.directed = call.options.directed ? 1 : 0;
  masks.percentile = call.options.percentile;
  // MONAI takes a percentile of 0 for none: the maximum.
  if (call.options.convention == ops::MaskConvention::monai && masks.percentile == 0) masks.percentile = -1;
  masks.scale = steps.scale;
  for (int axis = 0; axis < 3; ++axis) {
    masks.size[axis] = call.shape.size[axis];
    masks.grid[axis] = call.shape.size[axis] + (corners && axis >= 3 - call.shape.dimensions ? 1 : 0);
    masks.unit[axis] = steps.unit[axis];
  }
  return masks;
}

// The areas by code, on the device. The copy is from pageable memory: it is staged before the call returns.
Tensor areas_on_device(const ops::MaskCall& call, const Tensor& like, cudaStream_t stream) {
  double areas[256] = {};
  if (call.options.convention == ops::MaskConvention::deepmind) {
    if (call.shape.dimensions == 3) {
      ops::surfel_areas(call.options.spacing, areas);
    } else {
      ops::surfel_lengths(call.options.spacing + 1, areas);
    }
  }
  Tensor table = ops::empty_beside(like, {256}, ScalarType::Double);
  check(cudaMemcpyAsync(table.mutable_data_ptr(), areas, sizeof(areas), cudaMemcpyHostToDevice, stream),
        "mask_distance: areas");
  return table;
}

Tensor mask_distance_cuda(const Tensor& prediction, const Tensor& target, std::vector<double> spacing,
                          double percentile, bool directed, std::string metric, std::string convention) {
  const ops::MaskCall call =
      ops::mask_call(prediction, target, spacing, percentile, directed, metric, convention);
  const StreamOf stream(prediction);
  const Tensor pred = ops::as_contiguous(prediction), goal = ops::as_contiguous(target);
  const RubriscopeMasks masks = masks_of(call);
  const std::int64_t both = std::max<std::int64_t>(1, 2 * masks.grid[0] * masks.grid[1] * masks.grid[2]);
  STD_TORCH_CHECK(both < (std::int64_t{1} << 31), "mask_distance: a mask has ", both / 2,
                  " surface elements, expected fewer than 2^30");
  Tensor out = ops::mask_output(prediction, spacing.size());
  Tensor codes = ops::empty_beside(prediction, {both}, ScalarType::Byte);
  Tensor nearest = ops::empty_beside(prediction, {both}, ScalarType::Int);
  Tensor planes = ops::empty_beside(prediction, {both}, ScalarType::Double);
  Tensor costs = ops::empty_beside(prediction, {both}, ScalarType::Double);
  Tensor cost_codes = ops::empty_beside(prediction, {both}, ScalarType::Byte);
  Tensor counters = ops::empty_beside(prediction, {2}, ScalarType::Int);
  const Tensor areas = areas_on_device(call, prediction, stream);
  const RubriscopeMaskScratch scratch{static_cast<std::uint8_t*>(codes.mutable_data_ptr()),
                                      static_cast<std::int32_t*>(nearest.mutable_data_ptr()),
                                      static_cast<double*>(planes.mutable_data_ptr()),
                                      static_cast<double*>(costs.mutable_data_ptr()),
                                      static_cast<std::uint8_t*>(cost_codes.mutable_data_ptr()),
                                      static_cast<std::int32_t*>(counters.mutable_data_ptr())};
  const std::int64_t voxels = masks.size[0] * masks.size[1] * masks.size[2];
  for (std::int64_t item = 0; item < call.shape.items; ++item) {
    check(rubriscope_mask_distance(static_cast<const std::uint8_t*>(pred.const_data_ptr()) + item * voxels,
                                   static_cast<const std::uint8_t*>(goal.const_data_ptr()) + item * voxels,
                                   &masks, &scratch, static_cast<const double*>(areas.const_data_ptr()),
                                   static_cast<double*>(out.mutable_data_ptr()) + item, stream),
          "mask_distance");
  }
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(rubriscope, CUDA, m) { m.impl("mask_distance", TORCH_BOX(&mask_distance_cuda)); }

}  // namespace rubriscope::cuda
