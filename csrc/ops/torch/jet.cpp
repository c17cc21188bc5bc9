#include "rubriscope/ops/torch/jet.h"

#include <tuple>

namespace rubriscope::ops {

namespace {

Tensor mlp_jet_cpu(const Tensor& x, const Tensor& parameters, std::vector<std::int64_t> widths,
                   std::string activation, const Tensor& directions, std::vector<std::int64_t> orders,
                   std::vector<double> collapse, std::vector<double> drift) {
  const JetCall call(x, parameters, widths, activation, directions, orders, collapse, drift);
  Tensor out = empty_beside(call.x, {call.channels(), call.count(), call.outputs()});
  if (call.is_double()) {
    mlp_jet(call.jet<double>(), call.count(), static_cast<const double*>(call.x.const_data_ptr()),
            static_cast<double*>(out.mutable_data_ptr()), torch_threads());
  } else {
    mlp_jet(call.jet<float>(), call.count(), static_cast<const float*>(call.x.const_data_ptr()),
            static_cast<float*>(out.mutable_data_ptr()), torch_threads());
  }
  return out;
}

template <class T>
void backward(const JetCall& call, const Tensor& grad, bool wants_x, Tensor& x_bar, Tensor& parameters_bar) {
  mlp_jet_backward(call.jet<T>(), call.count(), static_cast<const T*>(call.x.const_data_ptr()),
                   static_cast<const T*>(grad.const_data_ptr()),
                   wants_x ? static_cast<T*>(x_bar.mutable_data_ptr()) : nullptr,
                   static_cast<T*>(parameters_bar.mutable_data_ptr()), torch_threads());
}

std::tuple<Tensor, Tensor> mlp_jet_backward_cpu(const Tensor& grad, const Tensor& x, const Tensor& parameters,
                                                std::vector<std::int64_t> widths, std::string activation,
                                                const Tensor& directions, std::vector<std::int64_t> orders,
                                                std::vector<double> collapse, std::vector<double> drift,
                                                bool wants_x) {
  const JetCall call(x, parameters, widths, activation, directions, orders, collapse, drift);
  call.check_cotangent(grad);
  const Tensor bar = as_contiguous(grad);
  Tensor x_bar = empty_beside(call.x, {wants_x ? call.count() : 0, call.x.size(1)});
  Tensor parameters_bar = empty_beside(call.x, {call.parameters.size(0)});
  if (call.is_double()) {
    backward<double>(call, bar, wants_x, x_bar, parameters_bar);
  } else {
    backward<float>(call, bar, wants_x, x_bar, parameters_bar);
  }
  return {x_bar, parameters_bar};
}

}  // namespace

// parameters: weight (out, in) and bias of each layer, flattened one after the other. A direction has
// derivatives of order 1 … its entry of orders. drift (one number per input) asks for the collapsed channel,
// with collapse (one number per direction). Returns (channels, N, outputs). The backward's first result is
// empty unless wants_x. The overloads `plain` have no autograd.
STABLE_TORCH_LIBRARY_FRAGMENT(rubriscope, m) {
  m.def(
      "mlp_jet(Tensor x, Tensor parameters, int[] widths, str activation, Tensor directions, int[] orders, "
      "float[] collapse, float[] drift) -> Tensor");
  m.def(
      "mlp_jet.plain(Tensor x, Tensor parameters, int[] widths, str activation, Tensor directions, int[] "
      "orders, float[] collapse, float[] drift) -> Tensor");
  m.def(
      "mlp_jet_backward(Tensor grad, Tensor x, Tensor parameters, int[] widths, str activation, Tensor "
      "directions, int[] orders, float[] collapse, float[] drift, bool wants_x) -> (Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(rubriscope, CPU, m) {
  m.impl("mlp_jet", TORCH_BOX(&mlp_jet_cpu));
  m.impl("mlp_jet.plain", TORCH_BOX(&mlp_jet_cpu));
  m.impl("mlp_jet_backward", TORCH_BOX(&mlp_jet_backward_cpu));
}

}  // namespace rubriscope::ops
