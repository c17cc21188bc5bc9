// Launcher of mask_distance on CUDA.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

/// A pair of masks and how their distance is taken; axes are z, y, x.
struct RubriscopeMasks {
  int dimensions;
  int metric;      ///< MaskMetric
  int convention;  ///< MaskConvention
  int directed;
  double percentile;     ///< negative: the maximum
  std::int64_t size[3];  ///< voxels
  std::int64_t grid[3];  ///< surface elements there can be: voxels, or corners (DeepMind)
  double unit[3];        ///< MaskSteps
  double scale;
};

/// Device memory, for n = product of the grid: codes 2 n; nearest, planes, costs and cost_codes 2 n;
/// counters 2.
struct RubriscopeMaskScratch {
  std::uint8_t* codes;
  std::int32_t* nearest;
  double* planes;
  double* costs;
  std::uint8_t* cost_codes;
  std::int32_t* counters;
};

extern "C" {

/// One pair; areas (256, on the device) by code, for DeepMind's convention.
cudaError_t rubriscope_mask_distance(const std::uint8_t* prediction, const std::uint8_t* target,
                                     const RubriscopeMasks* masks, const RubriscopeMaskScratch* scratch,
                                     const double* areas, double* out, cudaStream_t stream);
}
