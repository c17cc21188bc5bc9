#include "stencil.h"

#include "stencil_flat.h"

namespace {

using rubriscope::cuda::StencilArrays;
using rubriscope::ops::stencil::is_masked;
using rubriscope::ops::stencil::Operand;
using rubriscope::ops::stencil::Program;
using rubriscope::ops::stencil::run_at;
using rubriscope::ops::stencil::Source;
using rubriscope::ops::stencil::Stage;

constexpr int threads = 128;
constexpr int sum_blocks = 1024;
constexpr int sum_threads = 256;

// Both go to a kernel by value.
static_assert(sizeof(Program) + sizeof(StencilArrays) + 16 <= 32764, "over the limit of kernel arguments");

int blocks_for(std::int64_t count) {
  const std::int64_t blocks = (count + threads - 1) / threads;
  return static_cast<int>(blocks<1 ? 1 : blocks>(1 << 20) ? (1 << 20) : blocks);
}

template <class T>
__global__ void scalars_kernel(const __grid_constant__ Program program,
                               const __grid_constant__ StencilArrays arrays, T* scalars) {
  const int s = static_cast<int>(threadIdx.x);
  if (s >= program.scalars) return;
  const int param = program.scalar[s].param;
  const double value = param < 0 ? 1.0 : static_cast<double>(*static_cast<const T*>(arrays.params[param]));
  scalars[s] = static_cast<T>(program.scalar[s].number * value);
}

template <class T, bool gather>
__global__ void __launch_bounds__(threads)
    stage_kernel(const __grid_constant__ Program program, const __grid_constant__ StencilArrays arrays,
                 T scale) {
  const Stage& stage = gather ? program.gather : program.point;
  const std::int64_t rows = program.axes[1].nodes, columns = program.axes[2].nodes;
  const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
  const std::int64_t count = arrays.batch * arrays.points;
  T slots[Program::most_slots];
  for (std::int64_t at = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; at < count;
       at += stride) {
    const std::int64_t b = at / arrays.points, point = at - b * arrays.points;
    const std::int64_t row = point / columns, k = point - row * columns;
    const std::int64_t i = row / rows, j = row - i * rows;
    T* const* const outputs = reinterpret_cast<T* const*>(arrays.outputs);
    if (!gather && is_masked(program, i, j, k)) {
      for (int o = 0; o < stage.outputs; ++o) outputs[o][at] = T(0);
      continue;
    }
    if (!gather) {
      for (int o = 0; o < program.operands; ++o) {
        const Operand& operand = program.operand[o];
        if (operand.source == Source::input) {
          slots[o] = static_cast<const T*>(arrays.inputs[operand.index])[at];
        } else if (operand.source == Source::param) {
          slots[o] = static_cast<const T*>(
              arrays.params[operand.index])[b * arrays.param_batch_stride[operand.index] + point];
        } else {
          slots[o] = static_cast<const T*>(arrays.cotangents[operand.index])[at];
        }
      }
    }
    run_at<T>(program, stage, reinterpret_cast<const T* const*>(arrays.inputs), b * arrays.points,
              static_cast<const T*>(arrays.scalars), i, j, k, slots);
    for (int o = 0; o < stage.outputs; ++o) outputs[o][at] = scale * slots[program.operands + o];
  }
}

// Each block adds up its own stretch; a tree over its threads follows.
__device__ double block_sum(double value) {
  __shared__ double shared[sum_threads];
  shared[threadIdx.x] = value;
  __syncthreads();
  for (int half = sum_threads / 2; half > 0; half /= 2) {
    if (static_cast<int>(threadIdx.x) < half) shared[threadIdx.x] += shared[threadIdx.x + half];
    __syncthreads();
  }
  return shared[0];
}

template <class T>
__global__ void __launch_bounds__(sum_threads)
    partial_kernel(const T* values, std::int64_t count, bool squared, double* partial) {
  const std::int64_t each = (count + sum_blocks - 1) / sum_blocks;
  const std::int64_t begin = blockIdx.x * each;
  const std::int64_t end = begin + each < count ? begin + each : count;
  double sum = 0;
  for (std::int64_t i = begin + threadIdx.x; i < end; i += sum_threads) {
    const double value = static_cast<double>(values[i]);
    sum += squared ? value * value : value;
  }
  sum = block_sum(sum);
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

__global__ void __launch_bounds__(sum_threads) whole_kernel(const double* partial, double* sum) {
  double mine = 0;
  for (int i = static_cast<int>(threadIdx.x); i < sum_blocks; i += sum_threads) mine += partial[i];
  mine = block_sum(mine);
  if (threadIdx.x == 0) *sum = mine;
}

template <class T>
__global__ void total_kernel(const double* sums, int count, double scale, T* to) {
  double total = 0;
  for (int i = 0; i < count; ++i) total += sums[i];
  *to = static_cast<T>(scale * total);
}

template <class T>
__global__ void __launch_bounds__(threads)
    scaled_kernel(const T* from, const T* by, T* to, std::int64_t count) {
  const T factor = *by;
  const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count;
       i += stride) {
    to[i] = factor * from[i];
  }
}

template <class T>
cudaError_t stage_of(const Program& program, const StencilArrays& arrays, bool gather, double scale,
                     cudaStream_t stream) {
  const std::int64_t count = arrays.batch * arrays.points;
  if (count == 0) return cudaSuccess;
  if (gather) {
    stage_kernel<T, true><<<blocks_for(count), threads, 0, stream>>>(program, arrays, static_cast<T>(scale));
  } else {
    stage_kernel<T, false><<<blocks_for(count), threads, 0, stream>>>(program, arrays, static_cast<T>(scale));
  }
  return cudaGetLastError();
}

}  // namespace

extern "C" {

cudaError_t rubriscope_stencil_scalars(const Program* program, const StencilArrays* arrays, void* scalars,
                                       int is_double, cudaStream_t stream) {
  if (is_double) {
    scalars_kernel<double>
        <<<1, Program::most_scalars, 0, stream>>>(*program, *arrays, static_cast<double*>(scalars));
  } else {
    scalars_kernel<float>
        <<<1, Program::most_scalars, 0, stream>>>(*program, *arrays, static_cast<float*>(scalars));
  }
  return cudaGetLastError();
}

cudaError_t rubriscope_stencil_stage(const Program* program, const StencilArrays* arrays, int gather,
                                     double scale, int is_double, cudaStream_t stream) {
  if (rubriscope::cuda::run_flat_stage(*program, *arrays, gather != 0, scale, is_double != 0, stream)) {
    return cudaGetLastError();
  }
  return is_double ? stage_of<double>(*program, *arrays, gather != 0, scale, stream)
                   : stage_of<float>(*program, *arrays, gather != 0, scale, stream);
}

int rubriscope_stencil_sum_blocks() { return sum_blocks; }

cudaError_t rubriscope_stencil_sum(const void* values, std::int64_t count, int squared, double* partial,
                                   double* sum, int is_double, cudaStream_t stream) {
  if (is_double) {
    partial_kernel<<<sum_blocks, sum_threads, 0, stream>>>(static_cast<const double*>(values), count,
                                                           squared != 0, partial);
  } else {
    partial_kernel<<<sum_blocks, sum_threads, 0, stream>>>(static_cast<const float*>(values), count,
                                                           squared != 0, partial);
  }
  if (const cudaError_t failed = cudaGetLastError(); failed != cudaSuccess) return failed;
  whole_kernel<<<1, sum_threads, 0, stream>>>(partial, sum);
  return cudaGetLastError();
}

cudaError_t rubriscope_stencil_total(const double* sums, int count, double scale, void* to, int is_double,
                                     cudaStream_t stream) {
  if (is_double) {
    total_kernel<<<1, 1, 0, stream>>>(sums, count, scale, static_cast<double*>(to));
  } else {
    total_kernel<<<1, 1, 0, stream>>>(sums, count, scale, static_cast<float*>(to));
  }
  return cudaGetLastError();
}

cudaError_t rubriscope_stencil_scaled(const void* from, const void* by, void* to, std::int64_t count,
                                      int is_double, cudaStream_t stream) {
  if (count == 0) return cudaSuccess;
  if (is_double) {
    scaled_kernel<<<blocks_for(count), threads, 0, stream>>>(
        static_cast<const double*>(from), static_cast<const double*>(by), static_cast<double*>(to), count);
  } else {
    scaled_kernel<<<blocks_for(count), threads, 0, stream>>>(
        static_cast<const float*>(from), static_cast<const float*>(by), static_cast<float*>(to), count);
  }
  return cudaGetLastError();
}
}
