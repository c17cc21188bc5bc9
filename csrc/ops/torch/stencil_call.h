// What the operators on grids check before a kernel runs, on the CPU and on CUDA alike.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "rubriscope/ops/stencil/parse.h"
#include "rubriscope/ops/torch/tensors.h"

namespace rubriscope::ops::stencil {

/// A program and the tensors it runs on: contiguous, of one dtype, device and shape.
struct Call {
  std::shared_ptr<const Program> program;
  std::vector<Tensor> inputs, params, cotangents;
  std::vector<std::int64_t> param_batch_stride;
  std::int64_t points = 1, batch = 0;

  Call(const std::vector<Tensor>& inputs_given, const std::vector<Tensor>& params_given,
       const std::vector<Tensor>* cotangents_given, const std::vector<std::int64_t>& code,
       const std::vector<double>& numbers)
      : Call(inputs_given, params_given, cotangents_given,
             parse(code.data(), code.size(), numbers.data(), numbers.size())) {}

  Call(const std::vector<Tensor>& inputs_given, const std::vector<Tensor>& params_given,
       const std::vector<Tensor>* cotangents_given, std::shared_ptr<const Program> of)
      : program(std::move(of)) {
    const Program& p = *program;
    STD_TORCH_CHECK(!inputs_given.empty(), "inputs is empty");
    const Tensor& first = inputs_given[0];
    const ScalarType dtype = first.scalar_type();
    STD_TORCH_CHECK(dtype == ScalarType::Float || dtype == ScalarType::Double,
                    "inputs[0] is neither float32 nor float64");
    int axis = 2;
    for (std::int64_t dim = first.dim() - 1; dim >= 0 && axis >= 0; --dim, --axis) {
      if (axis < 2 && p.axes[axis].nodes == 1 && only_ones(axis)) break;
      STD_TORCH_CHECK(first.size(dim) == p.axes[axis].nodes, "inputs[0] has ", first.size(dim),
                      " nodes along a grid axis, and the program is for ", p.axes[axis].nodes);
    }
    for (const Axis& of : p.axes) points *= of.nodes;
    STD_TORCH_CHECK(first.numel() % points == 0, "inputs[0] has another shape than the program's grid");
    batch = first.numel() / points;
    check_all(inputs_given, "inputs", first, p.inputs_used, inputs);
    if (cotangents_given != nullptr)
      check_all(*cotangents_given, "cotangents", first, p.cotangents_used, cotangents);
    STD_TORCH_CHECK(cotangents_given != nullptr || p.cotangents_used == 0, "the program takes cotangents");
    STD_TORCH_CHECK(static_cast<int>(params_given.size()) >= p.params_used, "params has ",
                    params_given.size(), " tensors, and the program uses ", p.params_used);
    for (std::size_t i = 0; i < params_given.size(); ++i) {
      const Tensor& param = params_given[i];
      check_place(param, "params", i, first);
      const std::int64_t count = param.numel();
      STD_TORCH_CHECK(count == 1 || count == points || count == points * batch, "params[", i, "] has ", count,
                      " elements, expected 1 or those of the grid");
      params.push_back(as_contiguous(param));
      param_batch_stride.push_back(count == points * batch ? points : 0);
    }
    for (int o = 0; o < p.operands; ++o) {
      const Operand& operand = p.operand[o];
      if (operand.source == Source::param) {
        STD_TORCH_CHECK(params[static_cast<std::size_t>(operand.index)].numel() >= points, "params[",
                        operand.index, "] is no field");
      }
    }
    for (int g = 0; g < p.gradients; ++g) {
      const Operand& of = p.gradient[g];
      STD_TORCH_CHECK(of.source == Source::input || g >= p.gather.outputs ||
                          params[static_cast<std::size_t>(of.index)].numel() == points * batch,
                      "params[", of.index, "] has a gradient and lacks the batch's axes");
    }
  }

  bool is_double() const { return inputs[0].scalar_type() == ScalarType::Double; }

  /// The tensors' data, for the kernels.
  template <class T>
  static std::vector<T*> data(const std::vector<Tensor>& tensors) {
    std::vector<T*> found;
    for (const Tensor& tensor : tensors) found.push_back(static_cast<T*>(tensor.mutable_data_ptr()));
    return found;
  }

  /// `count` new tensors like the inputs.
  std::vector<Tensor> new_fields(int count) const {
    std::vector<Tensor> found;
    for (int i = 0; i < count; ++i) found.push_back(torch::stable::empty_like(inputs[0]));
    return found;
  }

 private:
  // Whether the grid has no axis from `axis` on to the front.
  bool only_ones(int axis) const {
    for (int a = 0; a <= axis; ++a) {
      if (program->axes[a].nodes != 1) return false;
    }
    return true;
  }

  static void check_place(const Tensor& tensor, const char* name, std::size_t index, const Tensor& first) {
    STD_TORCH_CHECK(tensor.scalar_type() == first.scalar_type(), name, "[", index,
                    "] has another dtype than inputs[0]");
    STD_TORCH_CHECK(tensor.device() == first.device(), name, "[", index,
                    "] is on another device than inputs[0]");
  }

  static void check_all(const std::vector<Tensor>& given, const char* name, const Tensor& first, int used,
                        std::vector<Tensor>& into) {
    STD_TORCH_CHECK(static_cast<int>(given.size()) >= used, name, " has ", given.size(),
                    " tensors, and the program uses ", used);
    for (std::size_t i = 0; i < given.size(); ++i) {
      check_place(given[i], name, i, first);
      STD_TORCH_CHECK(given[i].numel() == first.numel(), name, "[", i, "] has another shape than inputs[0]");
      into.push_back(as_contiguous(given[i]));
    }
  }
};

}  // namespace rubriscope::ops::stencil
