#include "rubriscope/ops/vehicle/vehicle.h"

#include <algorithm>
#include <vector>

namespace rubriscope::ops {

template <class T>
void vehicle_forward(const VehicleCall<T>& call, std::int64_t count, T* out, const Parallel& parallel) {
  for_pieces(parallel, count, kVehiclePiece, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) vehicle_sample(call, i, out + i * kVehicleStates);
  });
}

template <class T>
void vehicle_backward(const VehicleCall<T>& call, std::int64_t count, const T* out_bar, T* state_bar,
                      T* control_bar, T* next_bar, T* dt_bar, T* parameters_bar, const Parallel& parallel) {
  constexpr std::int64_t sums = kVehicleParameters + 1;  // of each piece: the parameters, then dt
  const std::int64_t pieces = (count + kVehiclePiece - 1) / kVehiclePiece;
  std::vector<double> partial(static_cast<std::size_t>(pieces * sums), 0.0);
  for_pieces(parallel, count, kVehiclePiece, [&](std::int64_t begin, std::int64_t end) {
    double* const sum = partial.data() + begin / kVehiclePiece * sums;
    for (std::int64_t i = begin; i < end; ++i) {
      T p_bar[kVehicleParameters] = {};
      T* const next = next_bar == nullptr ? nullptr : next_bar + i * kVehicleStates;
      const T dt =
          vehicle_sample_adjoint(call, i, out_bar + i * kVehicleStates, state_bar + i * kVehicleStates,
                                 control_bar + i * kVehicleControls, next, p_bar);
      if (call.parameter_stride != 0) {
        std::copy(p_bar, p_bar + kVehicleParameters, parameters_bar + i * kVehicleParameters);
      } else {
        for (int k = 0; k < kVehicleParameters; ++k) sum[k] += static_cast<double>(p_bar[k]);
      }
      if (call.dt_stride != 0) {
        dt_bar[i] = dt;
      } else {
        sum[kVehicleParameters] += static_cast<double>(dt);
      }
    }
  });
  double total[sums] = {};
  for (std::int64_t piece = 0; piece < pieces; ++piece) {
    for (std::int64_t k = 0; k < sums; ++k) total[k] += partial[static_cast<std::size_t>(piece * sums + k)];
  }
  if (call.parameter_stride == 0) {
    for (int k = 0; k < kVehicleParameters; ++k) parameters_bar[k] = static_cast<T>(total[k]);
  }
  if (call.dt_stride == 0 && dt_bar != nullptr) *dt_bar = static_cast<T>(total[kVehicleParameters]);
}

template void vehicle_forward(const VehicleCall<float>&, std::int64_t, float*, const Parallel&);
template void vehicle_forward(const VehicleCall<double>&, std::int64_t, double*, const Parallel&);
template void vehicle_backward(const VehicleCall<float>&, std::int64_t, const float*, float*, float*, float*,
                               float*, float*, const Parallel&);
template void vehicle_backward(const VehicleCall<double>&, std::int64_t, const double*, double*, double*,
                               double*, double*, double*, const Parallel&);

}  // namespace rubriscope::ops
