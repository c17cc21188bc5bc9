// Residuals of equations on grids: the CUDA registration. Schemas: csrc/ops/torch/stencil.cpp.
#include "stencil.h"

#include <algorithm>
#include <tuple>

#include "rubriscope/ops/torch/stencil_call.h"
#include "stream.h"

namespace rubriscope::cuda {

namespace {

using ops::ScalarType;
using ops::Tensor;
using ops::stencil::Call;
using ops::stencil::Program;
using Integers = std::vector<std::int64_t>;
using Numbers = std::vector<double>;
using Tensors = std::vector<Tensor>;

void put(const Tensors& tensors, void** into) {
  for (std::size_t i = 0; i < tensors.size(); ++i) into[i] = tensors[i].mutable_data_ptr();
}

void put(const Tensors& tensors, const void** into) {
  for (std::size_t i = 0; i < tensors.size(); ++i) into[i] = tensors[i].mutable_data_ptr();
}

// A call's arrays, its scalars filled in by a first launch.
struct Arrays {
  StencilArrays arrays{};
  Tensor scalars;

  Arrays(const Call& call, cudaStream_t stream)
      : scalars(ops::empty_beside(call.inputs[0], {Program::most_scalars})) {
    const Program& p = *call.program;
    // Only what the program uses: further tensors are no part of it.
    put({call.inputs.begin(), call.inputs.begin() + p.inputs_used}, arrays.inputs);
    put({call.params.begin(), call.params.begin() + p.params_used}, arrays.params);
    if (p.cotangents_used > 0) {
      STD_TORCH_CHECK(p.cotangents_used <= 16, "code: over 16 cotangents");
      put({call.cotangents.begin(), call.cotangents.begin() + p.cotangents_used}, arrays.cotangents);
    }
    std::copy_n(call.param_batch_stride.begin(), p.params_used, arrays.param_batch_stride);
    arrays.batch = call.batch;
    arrays.points = call.points;
    check(rubriscope_stencil_scalars(&p, &arrays, scalars.mutable_data_ptr(), call.is_double(), stream),
          "stencil scalars");
    arrays.scalars = scalars.mutable_data_ptr();
  }
};

Tensors residual_plain(Tensors inputs, Tensors params, Integers code, Numbers numbers) {
  const Call call(inputs, params, nullptr, code, numbers);
  STD_TORCH_CHECK(call.program->gradients == 0 && call.program->point.outputs == call.program->components,
                  "code is no program of residuals");
  const StreamOf stream(call.inputs[0]);
  Arrays arrays(call, stream);
  Tensors outputs = call.new_fields(call.program->components);
  put(outputs, arrays.arrays.outputs);
  check(rubriscope_stencil_stage(call.program.get(), &arrays.arrays, 0, 1.0, call.is_double(), stream),
        "fd_residual");
  return outputs;
}

Tensors residual_cuda(Tensors inputs, Tensors params, Integers code, Numbers numbers, Integers, Numbers) {
  return residual_plain(std::move(inputs), std::move(params), std::move(code), std::move(numbers));
}

// Gradients; and with `total` the sum of the first `leading_sums` sums over `count`.
Tensors gradients_of(const Call& call, int leading_sums, double scale, double count, Tensor* total) {
  const Program& p = *call.program;
  STD_TORCH_CHECK(p.gradients - p.gather.outputs == p.sums - leading_sums, "code: gradients and sums differ");
  const StreamOf stream(call.inputs[0]);
  Arrays arrays(call, stream);
  const Tensors channels = call.new_fields(p.point.outputs);
  put(channels, arrays.arrays.outputs);
  check(rubriscope_stencil_stage(&p, &arrays.arrays, 0, 1.0, call.is_double(), stream),
        "fd_residual's channels");

  const Tensor partial =
      ops::empty_beside(call.inputs[0], {rubriscope_stencil_sum_blocks()}, ScalarType::Double);
  const Tensor sums = ops::empty_beside(call.inputs[0], {Program::most_sums}, ScalarType::Double);
  auto* const found = static_cast<double*>(sums.mutable_data_ptr());
  for (int s = 0; s < p.sums; ++s) {
    const void* const channel = channels[static_cast<std::size_t>(p.sum[s].channel)].mutable_data_ptr();
    check(rubriscope_stencil_sum(channel, call.batch * call.points, p.sum[s].squared,
                                 static_cast<double*>(partial.mutable_data_ptr()), found + s,
                                 call.is_double(), stream),
          "a sum of residuals");
  }

  Tensors gradients = call.new_fields(p.gather.outputs);
  if (p.gather.outputs > 0) {
    put(channels, arrays.arrays.inputs);
    put(gradients, arrays.arrays.outputs);
    check(rubriscope_stencil_stage(&p, &arrays.arrays, 1, scale, call.is_double(), stream),
          "fd_residual's gradient");
  }
  const auto number = [&](const double* from, int terms, double factor) {
    Tensor to = ops::empty_beside(call.inputs[0], {});
    check(rubriscope_stencil_total(from, terms, factor, to.mutable_data_ptr(), call.is_double(), stream),
          "a sum of residuals");
    return to;
  };
  for (int s = leading_sums; s < p.sums; ++s) gradients.push_back(number(found + s, 1, scale));
  if (total != nullptr) *total = number(found, leading_sums, 1.0 / count);
  return gradients;
}

Tensors residual_vjp(Tensors cotangents, Tensors inputs, Tensors params, Integers code, Numbers numbers) {
  const Call call(inputs, params, &cotangents, code, numbers);
  return gradients_of(call, 0, 1.0, 1.0, nullptr);
}

std::tuple<Tensor, Tensors> loss(Tensors inputs, Tensors params, Integers code, Numbers numbers) {
  const Call call(inputs, params, nullptr, code, numbers);
  const Program& p = *call.program;
  STD_TORCH_CHECK(p.sums >= p.components, "code is no program of a loss");
  const double count = static_cast<double>(p.components) * static_cast<double>(call.batch * call.points);
  Tensor total = ops::empty_beside(call.inputs[0], {});
  Tensors gradients = gradients_of(call, p.components, 2.0 / count, count, &total);
  return {std::move(total), std::move(gradients)};
}

Tensor loss_plain(Tensors inputs, Tensors params, Integers code, Numbers numbers) {
  return std::get<0>(loss(std::move(inputs), std::move(params), std::move(code), std::move(numbers)));
}

Tensors scaled(Tensors gradients, Tensor by, Tensors) {
  STD_TORCH_CHECK(by.numel() == 1, "by has ", by.numel(), " elements, expected 1");
  Tensors found;
  if (gradients.empty()) return found;
  const StreamOf stream(by);
  for (const Tensor& given : gradients) {
    const Tensor gradient = ops::as_contiguous(given);
    const ScalarType dtype = gradient.scalar_type();
    STD_TORCH_CHECK(dtype == by.scalar_type(), "by has another dtype than a gradient");
    STD_TORCH_CHECK(dtype == ScalarType::Double || dtype == ScalarType::Float,
                    "a gradient is neither float32 nor float64");
    STD_TORCH_CHECK(gradient.device() == by.device(), "by is on another device than a gradient");
    Tensor to = torch::stable::empty_like(gradient);
    check(rubriscope_stencil_scaled(gradient.mutable_data_ptr(), by.mutable_data_ptr(), to.mutable_data_ptr(),
                                    gradient.numel(), dtype == ScalarType::Double, stream),
          "fd_scaled");
    found.push_back(std::move(to));
  }
  return found;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(rubriscope, CUDA, m) {
  m.impl("fd_residual", TORCH_BOX(&residual_cuda));
  m.impl("fd_residual.plain", TORCH_BOX(&residual_plain));
  m.impl("fd_residual_vjp", TORCH_BOX(&residual_vjp));
  m.impl("fd_residual_loss", TORCH_BOX(&loss));
  m.impl("fd_residual_loss.plain", TORCH_BOX(&loss_plain));
  m.impl("fd_scaled", TORCH_BOX(&scaled));
}

}  // namespace rubriscope::cuda
