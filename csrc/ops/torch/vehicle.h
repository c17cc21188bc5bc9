// What the CPU and the CUDA registration of the single-track operators share.
#pragma once

#include <optional>

#include "rubriscope/ops/torch/tensors.h"
#include "rubriscope/ops/vehicle/single_track.h"

namespace rubriscope::ops {

/// The arguments of one call, checked; it holds the contiguous tensors the pointers lead into. Without `next`
/// it is the right side alone.
struct VehicleTensors {
  VehicleTensors(const Tensor& state_, const Tensor& control_, const std::optional<Tensor>& next_,
                 const std::optional<Tensor>& dt_, const Tensor& parameters_)
      : state(as_contiguous(state_)),
        control(as_contiguous(control_)),
        parameters(as_contiguous(parameters_)) {
    if (next_.has_value() && dt_.has_value()) {
      next = as_contiguous(*next_);
      dt = as_contiguous(*dt_);
    }
    check();
  }

  bool is_double() const { return state.scalar_type() == ScalarType::Double; }
  std::int64_t count() const { return state.size(0); }

  template <class T>
  VehicleCall<T> call(double theta) const {
    return {static_cast<const T*>(state.const_data_ptr()),
            static_cast<const T*>(control.const_data_ptr()),
            next ? static_cast<const T*>(next->const_data_ptr()) : nullptr,
            dt ? static_cast<const T*>(dt->const_data_ptr()) : nullptr,
            static_cast<const T*>(parameters.const_data_ptr()),
            shared_dt() ? 0 : 1,
            shared_parameters() ? 0 : kVehicleParameters,
            static_cast<T>(theta)};
  }

  bool shared_dt() const { return !dt || dt->dim() == 0; }
  bool shared_parameters() const { return parameters.dim() == 1; }

  void check_cotangent(const Tensor& bar) const { check_rows(bar, "grad", kVehicleStates); }

  Tensor state, control, parameters;
  std::optional<Tensor> next, dt;

 private:
  void check_rows(const Tensor& tensor, const char* name, std::int64_t columns) const {
    STD_TORCH_CHECK(tensor.dim() == 2 && tensor.size(0) == count() && tensor.size(1) == columns, name,
                    " does not have the shape (", count(), ", ", columns, ")");
    STD_TORCH_CHECK(tensor.scalar_type() == state.scalar_type(), name, " has another dtype than state");
  }

  void check() const {
    STD_TORCH_CHECK(state.scalar_type() == ScalarType::Float || state.scalar_type() == ScalarType::Double,
                    "state is neither float32 nor float64");
    STD_TORCH_CHECK(state.dim() == 2, "state has ", state.dim(), " dimensions, expected (N, 8)");
    check_rows(state, "state", kVehicleStates);
    check_rows(control, "control", kVehicleControls);
    STD_TORCH_CHECK(parameters.scalar_type() == state.scalar_type(),
                    "parameters has another dtype than state");
    if (parameters.dim() == 1) {
      STD_TORCH_CHECK(parameters.size(0) == kVehicleParameters, "parameters has ", parameters.size(0),
                      " entries, expected ", kVehicleParameters);
    } else {
      check_rows(parameters, "parameters", kVehicleParameters);
    }
    if (next) {
      check_rows(*next, "next_state", kVehicleStates);
      STD_TORCH_CHECK(dt->scalar_type() == state.scalar_type(), "dt has another dtype than state");
      STD_TORCH_CHECK(dt->dim() == 0 || (dt->dim() == 1 && dt->size(0) == count()),
                      "dt does not have the shape () or (", count(), ",)");
    }
  }
};

/// The tensors a backward returns: cotangents of state, control, next_state, dt and parameters; for the right
/// side alone those of next_state and dt are empty.
struct VehicleGradients {
  explicit VehicleGradients(const VehicleTensors& t)
      : state(empty_beside(t.state, {t.count(), kVehicleStates})),
        control(empty_beside(t.state, {t.count(), kVehicleControls})),
        next(empty_beside(t.state, {t.next ? t.count() : 0, kVehicleStates})),
        dt(!t.dt           ? empty_beside(t.state, {0})
           : t.shared_dt() ? empty_beside(t.state, {})
                           : empty_beside(t.state, {t.count()})),
        parameters(t.shared_parameters() ? empty_beside(t.state, {kVehicleParameters})
                                         : empty_beside(t.state, {t.count(), kVehicleParameters})) {}

  Tensor state, control, next, dt, parameters;
};

}  // namespace rubriscope::ops
