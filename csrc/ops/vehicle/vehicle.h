// The single-track model over many samples: the CPU kernel of single_track_residual and
// single_track_derivative.
#pragma once

#include "rubriscope/ops/parallel.h"
#include "rubriscope/ops/vehicle/single_track.h"

namespace rubriscope::ops {

/// Shared parameters' and a shared dt's gradients are summed in float64 over pieces of this many samples, and
/// those in order.
constexpr std::int64_t kVehiclePiece = 2048;

/// out: count × 8.
template <class T>
void vehicle_forward(const VehicleCall<T>& call, std::int64_t count, T* out, const Parallel& parallel);

/// next_bar and dt_bar are null for the right side alone. dt_bar has count entries or, where dt_stride is 0,
/// one; parameters_bar count rows or one.
template <class T>
void vehicle_backward(const VehicleCall<T>& call, std::int64_t count, const T* out_bar, T* state_bar,
                      T* control_bar, T* next_bar, T* dt_bar, T* parameters_bar, const Parallel& parallel);

}  // namespace rubriscope::ops
