// Residuals of equations on grids: schemas and the CPU's registration. `code` and `numbers` are a program as
// rubriscope.ops.physics._program writes it.
#include <cmath>
#include <limits>
#include <memory>
#include <mutex>
#include <tuple>
#include <unordered_map>

#include "rubriscope/ops/stencil/kernels.h"
#include "rubriscope/ops/torch/stencil_call.h"

namespace rubriscope::ops::stencil {

namespace {

using Integers = std::vector<std::int64_t>;
using Numbers = std::vector<double>;
using Tensors = std::vector<Tensor>;

template <class T, class Work>
void with_given(const Call& call, Work&& work) {
  const auto inputs = Call::data<const T>(call.inputs);
  const auto params = Call::data<const T>(call.params);
  const auto cotangents = Call::data<const T>(call.cotangents);
  work(Given<T>{call.batch, inputs.data(), params.data(), call.param_batch_stride.data(), cotangents.data()});
}

template <class T>
void run_residual(const Call& call, const Prepared& prepared, const Tensors& outputs) {
  const auto to = Call::data<T>(outputs);
  with_given<T>(call, [&](const Given<T>& given) { prepared.residual(torch_threads(), given, to.data()); });
}

template <class T>
Numbers run_sweep(const Call& call, const Prepared& prepared, double scale, const Tensors& gradients) {
  Numbers sums(static_cast<std::size_t>(call.program->sums) + 1);
  const auto to = Call::data<T>(gradients);
  with_given<T>(call, [&](const Given<T>& given) {
    prepared.sweep(torch_threads(), given, scale, to.data(), sums.data());
  });
  return sums;
}

Tensor scalar_beside(const Tensor& like, double value) {
  Tensor found = empty_beside(like, {});
  if (like.scalar_type() == ScalarType::Double) {
    *static_cast<double*>(found.mutable_data_ptr()) = value;
  } else {
    *static_cast<float*>(found.mutable_data_ptr()) = static_cast<float>(value);
  }
  return found;
}

Tensors residual_of(const Call& call, const Prepared& prepared) {
  STD_TORCH_CHECK(call.program->gradients == 0 && call.program->point.outputs == call.program->components,
                  "code is no program of residuals");
  Tensors outputs = call.new_fields(call.program->components);
  call.is_double() ? run_residual<double>(call, prepared, outputs)
                   : run_residual<float>(call, prepared, outputs);
  return outputs;
}

Tensors residual_plain(Tensors inputs, Tensors params, Integers code, Numbers numbers) {
  const Call call(inputs, params, nullptr, code, numbers);
  const Prepared prepared(call.program);
  return residual_of(call, prepared);
}

Tensors residual_cpu(Tensors inputs, Tensors params, Integers code, Numbers numbers, Integers, Numbers) {
  return residual_plain(std::move(inputs), std::move(params), std::move(code), std::move(numbers));
}

// Gradients, and the sums before those of parameters (one for each component where it is a loss).
Tensors gradients_of(const Call& call, const Prepared& prepared, int leading_sums, double scale,
                     Numbers* sums) {
  const Program& p = *call.program;
  STD_TORCH_CHECK(p.gradients - p.gather.outputs == p.sums - leading_sums, "code: gradients and sums differ");
  Tensors gradients = call.new_fields(p.gather.outputs);
  *sums = call.is_double() ? run_sweep<double>(call, prepared, scale, gradients)
                           : run_sweep<float>(call, prepared, scale, gradients);
  for (int s = leading_sums; s < p.sums; ++s) {
    gradients.push_back(scalar_beside(call.inputs[0], scale * (*sums)[static_cast<std::size_t>(s)]));
  }
  return gradients;
}

Tensors vjp_of(const Call& call, const Prepared& prepared) {
  Numbers sums;
  return gradients_of(call, prepared, 0, 1.0, &sums);
}

Tensors residual_vjp(Tensors cotangents, Tensors inputs, Tensors params, Integers code, Numbers numbers) {
  const Call call(inputs, params, &cotangents, code, numbers);
  const Prepared prepared(call.program);
  return vjp_of(call, prepared);
}

std::tuple<Tensor, Tensors> loss_of(const Call& call, const Prepared& prepared) {
  const Program& p = *call.program;
  STD_TORCH_CHECK(p.sums >= p.components, "code is no program of a loss");
  const double count = static_cast<double>(p.components) * static_cast<double>(call.batch * call.points);
  Numbers sums;
  Tensors gradients = gradients_of(call, prepared, p.components, 2.0 / count, &sums);
  double total = 0;
  for (int s = 0; s < p.components; ++s) total += sums[static_cast<std::size_t>(s)];
  return {scalar_beside(call.inputs[0], total / count), std::move(gradients)};
}

std::tuple<Tensor, Tensors> loss(Tensors inputs, Tensors params, Integers code, Numbers numbers) {
  const Call call(inputs, params, nullptr, code, numbers);
  const Prepared prepared(call.program);
  return loss_of(call, prepared);
}

Tensor loss_plain(Tensors inputs, Tensors params, Integers code, Numbers numbers) {
  return std::get<0>(loss(std::move(inputs), std::move(params), std::move(code), std::move(numbers)));
}

// Programs that eager calls run again and again: a number stands for one, so that its lists are read once.
class Held {
 public:
  std::int64_t hold(std::shared_ptr<const Prepared> prepared) {
    const std::lock_guard lock(mutex_);
    programs_.emplace(++last_, std::move(prepared));
    return last_;
  }
  std::shared_ptr<const Prepared> at(std::int64_t number) {
    const std::lock_guard lock(mutex_);
    const auto found = programs_.find(number);
    STD_TORCH_CHECK(found != programs_.end(), "program is ", number,
                    ", and no program of that number is held");
    return found->second;
  }
  void release(std::int64_t number) {
    const std::lock_guard lock(mutex_);
    programs_.erase(number);
  }

 private:
  std::mutex mutex_;
  std::int64_t last_ = 0;
  std::unordered_map<std::int64_t, std::shared_ptr<const Prepared>> programs_;
};

Held& held() {
  static auto* const programs = new Held;  // for as long as the process lives: Python releases late
  return *programs;
}

std::int64_t hold(Integers code, Numbers numbers) {
  return held().hold(
      std::make_shared<Prepared>(parse(code.data(), code.size(), numbers.data(), numbers.size())));
}

void release(std::int64_t program) { held().release(program); }

Tensors residual_held(Tensors inputs, Tensors params, std::int64_t program) {
  const auto prepared = held().at(program);
  return residual_of(Call(inputs, params, nullptr, prepared->program()), *prepared);
}

Tensors vjp_held(Tensors cotangents, Tensors inputs, Tensors params, std::int64_t program) {
  const auto prepared = held().at(program);
  return vjp_of(Call(inputs, params, &cotangents, prepared->program()), *prepared);
}

std::tuple<Tensor, Tensors> loss_held(Tensors inputs, Tensors params, std::int64_t program) {
  const auto prepared = held().at(program);
  return loss_of(Call(inputs, params, nullptr, prepared->program()), *prepared);
}

template <class T>
void multiply(const Tensor& from, double by, Tensor& to) {
  const T* const source = static_cast<const T*>(from.const_data_ptr());
  T* const target = static_cast<T*>(to.mutable_data_ptr());
  const T factor = static_cast<T>(by);
  for_pieces(torch_threads(), from.numel(), 65536, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) target[i] = factor * source[i];
  });
}

Tensors scaled(Tensors gradients, Tensor by, Tensors) {
  STD_TORCH_CHECK(by.numel() == 1, "by has ", by.numel(), " elements, expected 1");
  Tensors found;
  for (const Tensor& given : gradients) {
    const Tensor gradient = as_contiguous(given);
    STD_TORCH_CHECK(gradient.scalar_type() == by.scalar_type(), "by has another dtype than a gradient");
    Tensor to = torch::stable::empty_like(gradient);
    if (gradient.scalar_type() == ScalarType::Double) {
      multiply<double>(gradient, *static_cast<const double*>(by.const_data_ptr()), to);
    } else {
      STD_TORCH_CHECK(gradient.scalar_type() == ScalarType::Float,
                      "a gradient is neither float32 nor float64");
      multiply<float>(gradient, static_cast<double>(*static_cast<const float*>(by.const_data_ptr())), to);
    }
    found.push_back(std::move(to));
  }
  return found;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(rubriscope, m) {
  m.def(
      "fd_residual(Tensor[] inputs, Tensor[] params, int[] code, float[] numbers, int[] adjoint, "
      "float[] adjoint_numbers) -> Tensor[]");
  m.def("fd_residual.plain(Tensor[] inputs, Tensor[] params, int[] code, float[] numbers) -> Tensor[]");
  m.def(
      "fd_residual_vjp(Tensor[] cotangents, Tensor[] inputs, Tensor[] params, int[] code, float[] numbers) "
      "-> Tensor[]");
  m.def(
      "fd_residual_loss(Tensor[] inputs, Tensor[] params, int[] code, float[] numbers) -> (Tensor, "
      "Tensor[])");
  m.def("fd_residual_loss.plain(Tensor[] inputs, Tensor[] params, int[] code, float[] numbers) -> Tensor");
  m.def("fd_scaled(Tensor[] gradients, Tensor by, Tensor[] of) -> Tensor[]");
  // Eager calls on the CPU, which differentiate in Python: a program by its number.
  m.def("fd_program(int[] code, float[] numbers) -> int");
  m.def("fd_release(int program) -> ()");
  m.def("fd_held_residual(Tensor[] inputs, Tensor[] params, int program) -> Tensor[]");
  m.def("fd_held_vjp(Tensor[] cotangents, Tensor[] inputs, Tensor[] params, int program) -> Tensor[]");
  m.def("fd_held_loss(Tensor[] inputs, Tensor[] params, int program) -> (Tensor, Tensor[])");
}

STABLE_TORCH_LIBRARY_IMPL(rubriscope, CPU, m) {
  m.impl("fd_residual", TORCH_BOX(&residual_cpu));
  m.impl("fd_residual.plain", TORCH_BOX(&residual_plain));
  m.impl("fd_residual_vjp", TORCH_BOX(&residual_vjp));
  m.impl("fd_residual_loss", TORCH_BOX(&loss));
  m.impl("fd_residual_loss.plain", TORCH_BOX(&loss_plain));
  m.impl("fd_scaled", TORCH_BOX(&scaled));
  m.impl("fd_held_residual", TORCH_BOX(&residual_held));
  m.impl("fd_held_vjp", TORCH_BOX(&vjp_held));
  m.impl("fd_held_loss", TORCH_BOX(&loss_held));
}

STABLE_TORCH_LIBRARY_IMPL(rubriscope, CompositeExplicitAutograd, m) {
  m.impl("fd_program", TORCH_BOX(&hold));
  m.impl("fd_release", TORCH_BOX(&release));
}

}  // namespace rubriscope::ops::stencil
