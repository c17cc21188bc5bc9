#include "rubriscope/ops/torch/vehicle.h"

#include <tuple>

#include "rubriscope/ops/vehicle/vehicle.h"

namespace rubriscope::ops {

namespace {

Tensor forward(const VehicleTensors& tensors, double theta) {
  Tensor out = empty_beside(tensors.state, {tensors.count(), kVehicleStates});
  if (tensors.is_double()) {
    vehicle_forward(tensors.call<double>(theta), tensors.count(),
                    static_cast<double*>(out.mutable_data_ptr()), torch_threads());
  } else {
    vehicle_forward(tensors.call<float>(theta), tensors.count(), static_cast<float*>(out.mutable_data_ptr()),
                    torch_threads());
  }
  return out;
}

template <class T>
void backward_as(const VehicleTensors& tensors, const Tensor& grad, double theta, VehicleGradients& found) {
  vehicle_backward(tensors.call<T>(theta), tensors.count(), static_cast<const T*>(grad.const_data_ptr()),
                   static_cast<T*>(found.state.mutable_data_ptr()),
                   static_cast<T*>(found.control.mutable_data_ptr()),
                   tensors.next ? static_cast<T*>(found.next.mutable_data_ptr()) : nullptr,
                   tensors.dt ? static_cast<T*>(found.dt.mutable_data_ptr()) : nullptr,
                   static_cast<T*>(found.parameters.mutable_data_ptr()), torch_threads());
}

VehicleGradients backward(const VehicleTensors& tensors, const Tensor& grad, double theta) {
  tensors.check_cotangent(grad);
  const Tensor bar = as_contiguous(grad);
  VehicleGradients found(tensors);
  if (tensors.is_double()) {
    backward_as<double>(tensors, bar, theta, found);
  } else {
    backward_as<float>(tensors, bar, theta, found);
  }
  return found;
}

Tensor derivative_cpu(const Tensor& state, const Tensor& control, const Tensor& parameters) {
  return forward(VehicleTensors(state, control, std::nullopt, std::nullopt, parameters), 0);
}

std::tuple<Tensor, Tensor, Tensor> derivative_backward_cpu(const Tensor& grad, const Tensor& state,
                                                           const Tensor& control, const Tensor& parameters) {
  VehicleGradients found =
      backward(VehicleTensors(state, control, std::nullopt, std::nullopt, parameters), grad, 0);
  return {found.state, found.control, found.parameters};
}

Tensor residual_cpu(const Tensor& state, const Tensor& control, const Tensor& next, const Tensor& dt,
                    const Tensor& parameters, double theta) {
  return forward(VehicleTensors(state, control, next, dt, parameters), theta);
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> residual_backward_cpu(
    const Tensor& grad, const Tensor& state, const Tensor& control, const Tensor& next, const Tensor& dt,
    const Tensor& parameters, double theta) {
  VehicleGradients found = backward(VehicleTensors(state, control, next, dt, parameters), grad, theta);
  return {found.state, found.control, found.next, found.dt, found.parameters};
}

}  // namespace

// state (N, 8), control (N, 3), parameters (22,) or (N, 22), dt () or (N,). The overloads `plain` have no
// autograd.
STABLE_TORCH_LIBRARY_FRAGMENT(rubriscope, m) {
  m.def("single_track_derivative(Tensor state, Tensor control, Tensor parameters) -> Tensor");
  m.def("single_track_derivative.plain(Tensor state, Tensor control, Tensor parameters) -> Tensor");
  m.def(
      "single_track_derivative_backward(Tensor grad, Tensor state, Tensor control, Tensor parameters) -> "
      "(Tensor, Tensor, Tensor)");
  m.def(
      "single_track_residual(Tensor state, Tensor control, Tensor next_state, Tensor dt, Tensor parameters, "
      "float theta) -> Tensor");
  m.def(
      "single_track_residual.plain(Tensor state, Tensor control, Tensor next_state, Tensor dt, Tensor "
      "parameters, float theta) -> Tensor");
  m.def(
      "single_track_residual_backward(Tensor grad, Tensor state, Tensor control, Tensor next_state, Tensor "
      "dt, "
      "Tensor parameters, float theta) -> (Tensor, Tensor, Tensor, Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(rubriscope, CPU, m) {
  m.impl("single_track_derivative", TORCH_BOX(&derivative_cpu));
  m.impl("single_track_derivative.plain", TORCH_BOX(&derivative_cpu));
  m.impl("single_track_derivative_backward", TORCH_BOX(&derivative_backward_cpu));
  m.impl("single_track_residual", TORCH_BOX(&residual_cpu));
  m.impl("single_track_residual.plain", TORCH_BOX(&residual_cpu));
  m.impl("single_track_residual_backward", TORCH_BOX(&residual_backward_cpu));
}

}  // namespace rubriscope::ops
