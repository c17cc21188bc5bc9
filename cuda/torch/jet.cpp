#include "rubriscope/ops/torch/jet.h"

#include <algorithm>
#include <tuple>

#include "jet.h"
#include "torch/stream.h"

namespace rubriscope::cuda {

namespace {

using ops::JetCall;
using ops::ScalarType;
using ops::Tensor;

// Points per chunk: bounds the scratch memory. Fixed, as the gradient's sums follow it.
constexpr std::int64_t kChunk = 16384;
// Rows per slice of a weight's gradient.
constexpr std::int64_t kSliceRows = 1024;

/// A call with what the kernels need beside it, chunk by chunk.
class Run {
 public:
  explicit Run(const JetCall& call) : call_(call), double_(call.is_double() ? 1 : 0), stream_(call.x) {
    STD_TORCH_CHECK(call.orders.size() <= kMostDirections, "directions has ", call.orders.size(),
                    " rows, expected at most ", kMostDirections, " on CUDA");
    STD_TORCH_CHECK(call.drift.size() <= kMostInputs, "x has ", call.drift.size(),
                    " columns, expected at most ", kMostInputs, " on CUDA with drift");
    layout_.channels = call.channels();
    layout_.directions = static_cast<int>(call.orders.size());
    layout_.collapsed = call.drift.empty() ? 0 : 1;
    layout_.activation = static_cast<int>(call.activation);
    int channel = 1;
    for (int k = 0; k < layout_.directions; ++k) {
      const auto at = static_cast<std::size_t>(k);
      layout_.first[k] = channel;
      layout_.orders[k] = static_cast<int>(call.orders[at]);
      layout_.collapse[k] = layout_.collapsed ? call.collapse[at] : 0.0;
      channel += layout_.orders[k];
    }
    for (std::size_t i = 0; i < call.drift.size(); ++i) layout_.drift[i] = call.drift[i];
    std::int64_t offset = 0;
    for (std::size_t l = 0; l + 1 < call.widths.size(); ++l) {
      weights_.push_back(offset);
      offset += call.widths[l] * call.widths[l + 1];
      biases_.push_back(offset);
      offset += call.widths[l + 1];
    }
    size_ = call.is_double() ? 8 : 4;
  }

  Tensor forward() {
    Tensor out = ops::empty_beside(call_.x, {layout_.channels, call_.count(), call_.outputs()});
    const std::int64_t layers = static_cast<std::int64_t>(weights_.size());
    for (std::int64_t begin = 0; begin < call_.count(); begin += kChunk) {
      const std::int64_t points = std::min(kChunk, call_.count() - begin);
      Tensor rows = input(begin, points);
      for (std::int64_t l = 0; l < layers; ++l) {
        Tensor z = product(rows, l, points);
        activate(z, z, l, points, l + 1 == layers);
        rows = z;
      }
      check(rubriscope_jet_rows(double_, layout_.channels, points, call_.outputs(), begin, call_.count(),
                                out.mutable_data_ptr(), rows.mutable_data_ptr(), 0, stream_),
            "mlp_jet");
    }
    return out;
  }

  std::tuple<Tensor, Tensor> backward(const Tensor& grad, bool wants_x) {
    const std::int64_t layers = static_cast<std::int64_t>(weights_.size()), inputs = call_.widths[0];
    Tensor x_bar = ops::empty_beside(call_.x, {wants_x ? call_.count() : 0, inputs});
    Tensor sums = ops::empty_beside(call_.x, {call_.parameters.size(0)}, ScalarType::Double);
    torch::stable::fill_(sums, 0.0);
    for (std::int64_t begin = 0; begin < call_.count(); begin += kChunk) {
      const std::int64_t points = std::min(kChunk, call_.count() - begin), rows = points * layout_.channels;
      std::vector<Tensor> z, a;
      a.push_back(input(begin, points));
      for (std::int64_t l = 0; l + 1 < layers; ++l) {
        z.push_back(product(a.back(), l, points));
        Tensor found = ops::empty_beside(call_.x, {rows, width(l + 1)});
        activate(z.back(), found, l, points, false);
        a.push_back(found);
      }
      Tensor bar = ops::empty_beside(call_.x, {rows, call_.outputs()});
      check(rubriscope_jet_rows(double_, layout_.channels, points, call_.outputs(), begin, call_.count(),
                                const_cast<void*>(grad.const_data_ptr()), bar.mutable_data_ptr(), 1, stream_),
            "mlp_jet_backward");
      for (std::int64_t l = layers - 1; l >= 0; --l) {
        add_gradient(bar, a[static_cast<std::size_t>(l)], l, points, sums);
        if (l > 0) {
          Tensor before = ops::empty_beside(call_.x, {rows, width(l)});
          check(rubriscope_jet_matmul(double_, rows, width(l), width(l + 1), bar.const_data_ptr(),
                                      width(l + 1), 1, parameter(weights_, l), width(l), 1,
                                      before.mutable_data_ptr(), 1, stream_),
                "mlp_jet_backward");
          check(rubriscope_jet_adjoint(double_, &layout_, points, width(l),
                                       z[static_cast<std::size_t>(l - 1)].const_data_ptr(),
                                       before.mutable_data_ptr(), stream_),
                "mlp_jet_backward");
          bar = before;
        } else if (wants_x) {
          check(rubriscope_jet_matmul(double_, points, inputs, width(1), bar.const_data_ptr(),
                                      layout_.channels * width(1), 1, parameter(weights_, 0), inputs, 1,
                                      static_cast<char*>(x_bar.mutable_data_ptr()) + begin * inputs * size_,
                                      1, stream_),
                "mlp_jet_backward");
        }
      }
    }
    return {x_bar, torch::stable::to(sums, call_.x.scalar_type())};
  }

 private:
  std::int64_t width(std::int64_t l) const { return call_.widths[static_cast<std::size_t>(l)]; }

  const void* parameter(const std::vector<std::int64_t>& offsets, std::int64_t l) const {
    return static_cast<const char*>(call_.parameters.const_data_ptr()) +
           offsets[static_cast<std::size_t>(l)] * size_;
  }

  Tensor input(std::int64_t begin, std::int64_t points) const {
    Tensor rows = ops::empty_beside(call_.x, {points * layout_.channels, width(0)});
    check(rubriscope_jet_input(double_, &layout_,
                               static_cast<const char*>(call_.x.const_data_ptr()) + begin * width(0) * size_,
                               call_.directions.const_data_ptr(), points, width(0), rows.mutable_data_ptr(),
                               stream_),
          "mlp_jet");
    return rows;
  }

  Tensor product(const Tensor& rows, std::int64_t l, std::int64_t points) const {
    Tensor z = ops::empty_beside(call_.x, {points * layout_.channels, width(l + 1)});
    check(rubriscope_jet_matmul(double_, points * layout_.channels, width(l + 1), width(l),
                                rows.const_data_ptr(), width(l), 1, parameter(weights_, l), 1, width(l),
                                z.mutable_data_ptr(), 1, stream_),
          "mlp_jet");
    return z;
  }

  void activate(const Tensor& z, const Tensor& a, std::int64_t l, std::int64_t points, bool last) const {
    check(rubriscope_jet_activate(double_, &layout_, points, width(l + 1), parameter(biases_, l),
                                  z.mutable_data_ptr(), last ? nullptr : a.mutable_data_ptr(), stream_),
          "mlp_jet");
  }

  void add_gradient(const Tensor& bar, const Tensor& a, std::int64_t l, std::int64_t points,
                    const Tensor& sums) const {
    const std::int64_t rows = points * layout_.channels, out = width(l + 1), in = width(l);
    const std::int64_t slices = std::clamp<std::int64_t>((std::int64_t{1} << 24) / (out * in), 1,
                                                         (rows + kSliceRows - 1) / kSliceRows);
    double* const to = static_cast<double*>(sums.mutable_data_ptr());
    const Tensor partial = ops::empty_beside(call_.x, {slices, out, in});
    check(rubriscope_jet_matmul(double_, out, in, rows, bar.const_data_ptr(), 1, out, a.const_data_ptr(), in,
                                1, partial.mutable_data_ptr(), slices, stream_),
          "mlp_jet_backward");
    check(rubriscope_jet_add_slices(double_, out * in, slices, partial.const_data_ptr(),
                                    to + weights_[static_cast<std::size_t>(l)], stream_),
          "mlp_jet_backward");
    const std::int64_t bias_slices = (points + 255) / 256;
    const Tensor columns = ops::empty_beside(call_.x, {bias_slices, out});
    check(rubriscope_jet_bias_slices(double_, layout_.channels, points, out, bias_slices,
                                     bar.const_data_ptr(), columns.mutable_data_ptr(), stream_),
          "mlp_jet_backward");
    check(rubriscope_jet_add_slices(double_, out, bias_slices, columns.const_data_ptr(),
                                    to + biases_[static_cast<std::size_t>(l)], stream_),
          "mlp_jet_backward");
  }

  const JetCall& call_;
  int double_;
  StreamOf stream_;
  JetLayout layout_{};
  std::vector<std::int64_t> weights_, biases_;
  std::int64_t size_;
};

Tensor mlp_jet_cuda(const Tensor& x, const Tensor& parameters, std::vector<std::int64_t> widths,
                    std::string activation, const Tensor& directions, std::vector<std::int64_t> orders,
                    std::vector<double> collapse, std::vector<double> drift) {
  const JetCall call(x, parameters, widths, activation, directions, orders, collapse, drift);
  return Run(call).forward();
}

std::tuple<Tensor, Tensor> mlp_jet_backward_cuda(const Tensor& grad, const Tensor& x,
                                                 const Tensor& parameters, std::vector<std::int64_t> widths,
                                                 std::string activation, const Tensor& directions,
                                                 std::vector<std::int64_t> orders,
                                                 std::vector<double> collapse, std::vector<double> drift,
                                                 bool wants_x) {
  const JetCall call(x, parameters, widths, activation, directions, orders, collapse, drift);
  call.check_cotangent(grad);
  return Run(call).backward(ops::as_contiguous(grad), wants_x);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(rubriscope, CUDA, m) {
  m.impl("mlp_jet", TORCH_BOX(&mlp_jet_cuda));
  m.impl("mlp_jet.plain", TORCH_BOX(&mlp_jet_cuda));
  m.impl("mlp_jet_backward", TORCH_BOX(&mlp_jet_backward_cuda));
}

}  // namespace rubriscope::cuda
