// A stage on a grid that is periodic along every axis (csrc/ops/stencil/flat.h): a warp takes up to 128
// columns of a row, each lane four that lie 32 apart, so that every access is to neighbouring numbers and
// what is read of the program serves four points.
#include "stencil_flat.h"

namespace {

using rubriscope::cuda::StencilArrays;
using rubriscope::ops::stencil::FlatStage;
using rubriscope::ops::stencil::flatten;
using rubriscope::ops::stencil::Operand;
using rubriscope::ops::stencil::Program;
using rubriscope::ops::stencil::run_flat;
using rubriscope::ops::stencil::Source;

constexpr int lanes = 32;
constexpr int rows_of_block = 4;
constexpr unsigned int most_blocks = 65535;  // along a grid's second and third side

static_assert(sizeof(FlatStage<double>) + sizeof(StencilArrays) + 16 <= 32764,
              "over the limit of kernel arguments");

/// `slots` a call needs, at most `Slots`: local memory, so few where few will do.
template <class T, bool gather, int Columns, int Slots>
__global__ void __launch_bounds__(lanes* rows_of_block)
    flat_kernel(const __grid_constant__ FlatStage<T> flat, const __grid_constant__ StencilArrays arrays,
                T scale) {
  const std::int32_t planes = flat.nodes[0], rows = flat.nodes[1], columns = flat.nodes[2];
  const std::int32_t k = static_cast<std::int32_t>(blockIdx.x) * lanes * Columns + threadIdx.x;
  if (k >= columns) return;
  const T* const* const inputs = reinterpret_cast<const T* const*>(arrays.inputs);
  T* const* const outputs = reinterpret_cast<T* const*>(arrays.outputs);
  const auto* const scalars = static_cast<const T*>(arrays.scalars);
  const auto row_step = static_cast<std::int32_t>(gridDim.y * rows_of_block);
  T slots[Slots][Columns];
  for (std::int64_t plane = blockIdx.z; plane < arrays.batch * planes; plane += gridDim.z) {
    const std::int64_t b = planes == 1 ? plane : plane / planes, origin = b * arrays.points;
    const auto i = static_cast<std::int32_t>(plane - b * planes);
    for (std::int32_t j = static_cast<std::int32_t>(blockIdx.y) * rows_of_block + threadIdx.y; j < rows;
         j += row_step) {
      const std::int64_t point = (static_cast<std::int64_t>(i) * rows + j) * columns + k;
      for (int o = 0; !gather && o < flat.operands; ++o) {
        const Operand& operand = flat.operand[o];
        const T* from;
        if (operand.source == Source::input) {
          from = inputs[operand.index] + origin;
        } else if (operand.source == Source::param) {
          from = static_cast<const T*>(arrays.params[operand.index]) +
                 b * arrays.param_batch_stride[operand.index];
        } else {
          from = static_cast<const T*>(arrays.cotangents[operand.index]) + origin;
        }
#pragma unroll
        for (int c = 0; c < Columns; ++c) {
          slots[o][c] = k + c * lanes < columns ? from[point + c * lanes] : T(0);
        }
      }
      run_flat<Columns, lanes>(flat, inputs, origin, scalars, i, j, k, columns - 1, slots);
      for (int o = 0; o < flat.outputs; ++o) {
#pragma unroll
        for (int c = 0; c < Columns; ++c) {
          if (k + c * lanes < columns) {
            outputs[o][origin + point + c * lanes] = scale * slots[flat.operands + o][c];
          }
        }
      }
    }
  }
}

template <class T, bool gather, int Slots>
void launch(const FlatStage<T>& flat, const StencilArrays& arrays, double scale, cudaStream_t stream) {
  const std::int64_t planes = arrays.batch * flat.nodes[0];
  const auto sides = [&](int columns) {
    const auto at_most = [](std::int64_t blocks) {
      return static_cast<unsigned int>(blocks < most_blocks ? blocks : most_blocks);
    };
    return dim3(static_cast<unsigned int>((flat.nodes[2] + lanes * columns - 1) / (lanes * columns)),
                at_most((flat.nodes[1] + rows_of_block - 1) / rows_of_block), at_most(planes));
  };
  const dim3 block(lanes, rows_of_block);
  const T by = static_cast<T>(scale);
  if (flat.nodes[2] >= 4 * lanes) {
    flat_kernel<T, gather, 4, Slots><<<sides(4), block, 0, stream>>>(flat, arrays, by);
  } else {
    flat_kernel<T, gather, 1, Slots><<<sides(1), block, 0, stream>>>(flat, arrays, by);
  }
}

template <class T, bool gather>
bool run(const Program& program, const StencilArrays& arrays, double scale, cudaStream_t stream) {
  const auto& stage = gather ? program.gather : program.point;
  FlatStage<T> flat{};
  if (!flatten(program, stage, &flat)) return false;
  if (arrays.batch * arrays.points == 0) return true;
  constexpr int few = 16;
  if (program.operands + stage.outputs + stage.registers <= few) {
    launch<T, gather, few>(flat, arrays, scale, stream);
  } else {
    launch<T, gather, Program::most_slots>(flat, arrays, scale, stream);
  }
  return true;
}

}  // namespace

namespace rubriscope::cuda {

bool run_flat_stage(const Program& program, const StencilArrays& arrays, bool gather, double scale,
                    bool is_double, cudaStream_t stream) {
  if (is_double) {
    return gather ? run<double, true>(program, arrays, scale, stream)
                  : run<double, false>(program, arrays, scale, stream);
  }
  return gather ? run<float, true>(program, arrays, scale, stream)
                : run<float, false>(program, arrays, scale, stream);
}

}  // namespace rubriscope::cuda
