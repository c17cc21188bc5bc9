// The CUDA side of the single-track operators, behind a C ABI.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "rubriscope/ops/vehicle/single_track.h"

extern "C" {

cudaError_t rubriscope_vehicle_forward_float(const rubriscope::ops::VehicleCall<float>* call,
                                             std::int64_t count, float* out, cudaStream_t stream);
cudaError_t rubriscope_vehicle_forward_double(const rubriscope::ops::VehicleCall<double>* call,
                                              std::int64_t count, double* out, cudaStream_t stream);

/// partial: float64, (blocks, 23) of rubriscope_vehicle_blocks(count); sums: float64, 23, gets their sum in
/// order: the parameters' gradient, then dt's. dt_bar and parameters_bar take the samples' own where they are
/// not shared, and are null elsewhere.
cudaError_t rubriscope_vehicle_backward_float(const rubriscope::ops::VehicleCall<float>* call,
                                              std::int64_t count, const float* out_bar, float* state_bar,
                                              float* control_bar, float* next_bar, float* dt_bar,
                                              float* parameters_bar, double* partial, double* sums,
                                              cudaStream_t stream);
cudaError_t rubriscope_vehicle_backward_double(const rubriscope::ops::VehicleCall<double>* call,
                                               std::int64_t count, const double* out_bar, double* state_bar,
                                               double* control_bar, double* next_bar, double* dt_bar,
                                               double* parameters_bar, double* partial, double* sums,
                                               cudaStream_t stream);

std::int64_t rubriscope_vehicle_blocks(std::int64_t count);
}
