#include "rubriscope/ops/torch/vehicle.h"

#include <tuple>

#include "torch/stream.h"
#include "vehicle.h"

namespace rubriscope::cuda {

namespace {

using ops::kVehicleParameters;
using ops::ScalarType;
using ops::Tensor;
using ops::VehicleGradients;
using ops::VehicleTensors;

Tensor forward(const VehicleTensors& tensors, double theta) {
  const StreamOf stream(tensors.state);
  Tensor out = ops::empty_beside(tensors.state, {tensors.count(), ops::kVehicleStates});
  if (tensors.is_double()) {
    const auto call = tensors.call<double>(theta);
    check(rubriscope_vehicle_forward_double(&call, tensors.count(),
                                            static_cast<double*>(out.mutable_data_ptr()), stream),
          "single_track");
  } else {
    const auto call = tensors.call<float>(theta);
    check(rubriscope_vehicle_forward_float(&call, tensors.count(),
                                           static_cast<float*>(out.mutable_data_ptr()), stream),
          "single_track");
  }
  return out;
}

template <class T, class Launch>
void launch_backward(Launch launch, const VehicleTensors& tensors, const Tensor& grad, double theta,
                     VehicleGradients& found, const Tensor& partial, const Tensor& sums,
                     cudaStream_t stream) {
  const auto call = tensors.call<T>(theta);
  check(launch(&call, tensors.count(), static_cast<const T*>(grad.const_data_ptr()),
               static_cast<T*>(found.state.mutable_data_ptr()),
               static_cast<T*>(found.control.mutable_data_ptr()),
               tensors.next ? static_cast<T*>(found.next.mutable_data_ptr()) : nullptr,
               tensors.shared_dt() ? nullptr : static_cast<T*>(found.dt.mutable_data_ptr()),
               tensors.shared_parameters() ? nullptr : static_cast<T*>(found.parameters.mutable_data_ptr()),
               static_cast<double*>(partial.mutable_data_ptr()),
               static_cast<double*>(sums.mutable_data_ptr()), stream),
        "single_track_backward");
}

VehicleGradients backward(const VehicleTensors& tensors, const Tensor& grad, double theta) {
  tensors.check_cotangent(grad);
  const StreamOf stream(tensors.state);
  const Tensor bar = ops::as_contiguous(grad);
  VehicleGradients found(tensors);
  const Tensor partial =
      ops::empty_beside(tensors.state, {rubriscope_vehicle_blocks(tensors.count()), kVehicleParameters + 1},
                        ScalarType::Double);
  const Tensor sums = ops::empty_beside(tensors.state, {kVehicleParameters + 1}, ScalarType::Double);
  if (tensors.is_double()) {
    launch_backward<double>(rubriscope_vehicle_backward_double, tensors, bar, theta, found, partial, sums,
                            stream);
  } else {
    launch_backward<float>(rubriscope_vehicle_backward_float, tensors, bar, theta, found, partial, sums,
                           stream);
  }
  Tensor cast = torch::stable::to(sums, tensors.state.scalar_type());
  if (tensors.shared_parameters()) {
    torch::stable::copy_(found.parameters, torch::stable::narrow(cast, 0, 0, kVehicleParameters));
  }
  if (tensors.dt && tensors.shared_dt()) {
    torch::stable::copy_(found.dt, torch::stable::select(cast, 0, kVehicleParameters));
  }
  return found;
}

Tensor derivative_cuda(const Tensor& state, const Tensor& control, const Tensor& parameters) {
  return forward(VehicleTensors(state, control, std::nullopt, std::nullopt, parameters), 0);
}

std::tuple<Tensor, Tensor, Tensor> derivative_backward_cuda(const Tensor& grad, const Tensor& state,
                                                            const Tensor& control, const Tensor& parameters) {
  VehicleGradients found =
      backward(VehicleTensors(state, control, std::nullopt, std::nullopt, parameters), grad, 0);
  return {found.state, found.control, found.parameters};
}

Tensor residual_cuda(const Tensor& state, const Tensor& control, const Tensor& next, const Tensor& dt,
                     const Tensor& parameters, double theta) {
  return forward(VehicleTensors(state, control, next, dt, parameters), theta);
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> residual_backward_cuda(
    const Tensor& grad, const Tensor& state, const Tensor& control, const Tensor& next, const Tensor& dt,
    const Tensor& parameters, double theta) {
  VehicleGradients found = backward(VehicleTensors(state, control, next, dt, parameters), grad, theta);
  return {found.state, found.control, found.next, found.dt, found.parameters};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(rubriscope, CUDA, m) {
  m.impl("single_track_derivative", TORCH_BOX(&derivative_cuda));
  m.impl("single_track_derivative.plain", TORCH_BOX(&derivative_cuda));
  m.impl("single_track_derivative_backward", TORCH_BOX(&derivative_backward_cuda));
  m.impl("single_track_residual", TORCH_BOX(&residual_cuda));
  m.impl("single_track_residual.plain", TORCH_BOX(&residual_cuda));
  m.impl("single_track_residual_backward", TORCH_BOX(&residual_backward_cuda));
}

}  // namespace rubriscope::cuda
