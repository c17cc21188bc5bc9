// mlp_jet layer by layer: all channels of all points of a chunk are rows of one product (tiles in shared
// memory), then the activation passes over each point's and unit's channels. Sums over points are taken in
// slices and those added in order, so results do not depend on scheduling.
#include "jet.h"

#include "rubriscope/ops/jet/activation.h"

namespace {

using rubriscope::cuda::JetLayout;
using rubriscope::ops::Activation;
using rubriscope::ops::ActivationJet;
using rubriscope::ops::kMaxOrder;

constexpr int kThreads = 256;
constexpr int kTile = 64;  // of c, each thread 4 × 4
constexpr int kDepth = 16;

unsigned blocks(std::int64_t count, std::int64_t each) {
  return static_cast<unsigned>((count + each - 1) / each);
}

// A grid-stride loop: any count fits in a bounded grid.
unsigned grid(std::int64_t count) {
  const std::int64_t wanted = (count + kThreads - 1) / kThreads;
  return static_cast<unsigned>(wanted < 65536 ? (wanted > 0 ? wanted : 1) : 65536);
}

template <class T>
__global__ void input_kernel(JetLayout layout, const T* x, const T* directions, std::int64_t points,
                             std::int64_t inputs, T* rows) {
  const std::int64_t count = points * inputs;
  for (std::int64_t i = std::int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < count;
       i += std::int64_t(gridDim.x) * blockDim.x) {
    const std::int64_t point = i / inputs, column = i % inputs;
    T* const to = rows + point * layout.channels * inputs + column;
    to[0] = x[i];
    for (int k = 0; k < layout.directions; ++k) {
      for (int order = 0; order < layout.orders[k]; ++order) {
        to[(layout.first[k] + order) * inputs] = order == 0 ? directions[k * inputs + column] : T(0);
      }
    }
    if (layout.collapsed) to[(layout.channels - 1) * inputs] = static_cast<T>(layout.drift[column]);
  }
}

template <class T>
__global__ void matmul_kernel(std::int64_t m, std::int64_t n, std::int64_t k, const T* a, std::int64_t a_row,
                              std::int64_t a_column, const T* b, std::int64_t b_row, std::int64_t b_column,
                              T* c, std::int64_t slice) {
  __shared__ T left[kDepth][kTile + 1];
  __shared__ T right[kDepth][kTile + 1];
  const std::int64_t row = std::int64_t(blockIdx.x) * kTile, column = std::int64_t(blockIdx.y) * kTile;
  const std::int64_t begin = std::int64_t(blockIdx.z) * slice;
  const std::int64_t end = begin + slice < k ? begin + slice : k;
  const int thread = threadIdx.x, down = thread / 16, across = thread % 16;
  T sum[4][4] = {};
  for (std::int64_t depth = begin; depth < end; depth += kDepth) {
    for (int i = thread; i < kTile * kDepth; i += kThreads) {
      // The index that is contiguous in memory runs fastest.
      const int at = a_column == 1 ? i / kDepth : i % kTile, deep = a_column == 1 ? i % kDepth : i / kTile;
      const bool inside = row + at < m && depth + deep < end;
      left[deep][at] = inside ? a[(row + at) * a_row + (depth + deep) * a_column] : T(0);
    }
    for (int i = thread; i < kTile * kDepth; i += kThreads) {
      const int at = b_column == 1 ? i % kTile : i / kDepth, deep = b_column == 1 ? i / kTile : i % kDepth;
      const bool inside = column + at < n && depth + deep < end;
      right[deep][at] = inside ? b[(depth + deep) * b_row + (column + at) * b_column] : T(0);
    }
    __syncthreads();
#pragma unroll
    for (int deep = 0; deep < kDepth; ++deep) {
      T l[4], r[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        l[i] = left[deep][down + 16 * i];
        r[i] = right[deep][across + 16 * i];
      }
#pragma unroll
      for (int i = 0; i < 4; ++i) {
#pragma unroll
        for (int j = 0; j < 4; ++j) sum[i][j] += l[i] * r[j];
      }
    }
    __syncthreads();
  }
  c += std::int64_t(blockIdx.z) * m * n;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const std::int64_t to_row = row + down + 16 * i, to_column = column + across + 16 * j;
      if (to_row < m && to_column < n) c[to_row * n + to_column] = sum[i][j];
    }
  }
}

template <class T>
__device__ ActivationJet<T> evaluate(int activation, T z) {
  using namespace rubriscope::ops;
  switch (static_cast<Activation>(activation)) {
    case Activation::tanh:
      return tanh_jet(tanh(z));
    case Activation::silu: {
      const T e = exp(z < T(0) ? z : -z);
      return silu_jet(z, (z < T(0) ? e : T(1)) / (T(1) + e));
    }
    case Activation::sin:
      return sin_jet(sin(z), cos(z));
    default:
      return gelu_jet(z, T(0.5) * erfc(z * T(-0.70710678118654752440)),
                      exp(T(-0.5) * z * z) * T(0.39894228040143267794));
  }
}

template <class T>
__global__ void activate_kernel(JetLayout layout, std::int64_t points, std::int64_t width, const T* bias,
                                T* z, T* a) {
  const std::int64_t count = points * width;
  for (std::int64_t i = std::int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < count;
       i += std::int64_t(gridDim.x) * blockDim.x) {
    const std::int64_t base = i / width * layout.channels * width + i % width;
    const T value = z[base] + bias[i % width];
    z[base] = value;
    if (a == nullptr) continue;
    const ActivationJet<T> f = evaluate(layout.activation, value);
    a[base] = f.d[0];
    T squares = T(0);
    for (int k = 0; k < layout.directions; ++k) {
      const std::int64_t at = base + layout.first[k] * width;
      T line[kMaxOrder] = {};
#pragma unroll
      for (int r = 0; r < kMaxOrder; ++r) {
        if (r < layout.orders[k]) line[r] = z[at + r * width];
      }
      squares += static_cast<T>(layout.collapse[k]) * line[0] * line[0];
      rubriscope::ops::line_forward(f, layout.orders[k], line);
#pragma unroll
      for (int r = 0; r < kMaxOrder; ++r) {
        if (r < layout.orders[k]) a[at + r * width] = line[r];
      }
    }
    if (layout.collapsed) {
      const std::int64_t at = base + (layout.channels - 1) * width;
      a[at] = f.d[1] * z[at] + f.d[2] * squares;
    }
  }
}

template <class T>
__global__ void adjoint_kernel(JetLayout layout, std::int64_t points, std::int64_t width, const T* z,
                               T* bar) {
  const std::int64_t count = points * width;
  for (std::int64_t i = std::int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < count;
       i += std::int64_t(gridDim.x) * blockDim.x) {
    const std::int64_t base = i / width * layout.channels * width + i % width;
    const std::int64_t last = base + (layout.channels - 1) * width;
    const ActivationJet<T> f = evaluate(layout.activation, z[base]);
    T value_bar = bar[base] * f.d[1];
    const T pull = layout.collapsed ? T(2) * bar[last] * f.d[2] : T(0);
    T squares = T(0);
    for (int k = 0; k < layout.directions; ++k) {
      const std::int64_t at = base + layout.first[k] * width;
      T line[kMaxOrder] = {}, line_bar[kMaxOrder] = {};
#pragma unroll
      for (int r = 0; r < kMaxOrder; ++r) {
        if (r < layout.orders[k]) {
          line[r] = z[at + r * width];
          line_bar[r] = bar[at + r * width];
        }
      }
      value_bar += rubriscope::ops::line_adjoint(f, layout.orders[k], line, line_bar);
      const T weighted = static_cast<T>(layout.collapse[k]) * line[0];
      squares += line[0] * weighted;
      line_bar[0] += pull * weighted;
#pragma unroll
      for (int r = 0; r < kMaxOrder; ++r) {
        if (r < layout.orders[k]) bar[at + r * width] = line_bar[r];
      }
    }
    if (layout.collapsed) {
      value_bar += bar[last] * (f.d[2] * z[last] + f.d[3] * squares);
      bar[last] *= f.d[1];
    }
    bar[base] = value_bar;
  }
}

template <class T>
__global__ void rows_kernel(std::int64_t channels, std::int64_t points, std::int64_t outputs,
                            std::int64_t begin, std::int64_t total, T* tensor, T* rows, bool to_rows) {
  const std::int64_t count = channels * points * outputs;
  for (std::int64_t i = std::int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < count;
       i += std::int64_t(gridDim.x) * blockDim.x) {
    const std::int64_t output = i % outputs, point = i / outputs % points, channel = i / outputs / points;
    T* const outside = tensor + (channel * total + begin + point) * outputs + output;
    T* const inside = rows + (point * channels + channel) * outputs + output;
    if (to_rows) {
      *inside = *outside;
    } else {
      *outside = *inside;
    }
  }
}

template <class T>
__global__ void add_slices_kernel(std::int64_t count, std::int64_t slices, const T* partial, double* sums) {
  for (std::int64_t i = std::int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < count;
       i += std::int64_t(gridDim.x) * blockDim.x) {
    double sum = sums[i];
    for (std::int64_t s = 0; s < slices; ++s) sum += static_cast<double>(partial[s * count + i]);
    sums[i] = sum;
  }
}

template <class T>
__global__ void bias_slices_kernel(std::int64_t channels, std::int64_t points, std::int64_t width,
                                   std::int64_t slices, const T* bar, T* partial) {
  const std::int64_t slice = (points + slices - 1) / slices;
  for (std::int64_t i = std::int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < slices * width;
       i += std::int64_t(gridDim.x) * blockDim.x) {
    const std::int64_t unit = i % width, begin = i / width * slice;
    const std::int64_t end = begin + slice < points ? begin + slice : points;
    T sum = T(0);
    for (std::int64_t p = begin; p < end; ++p) sum += bar[p * channels * width + unit];
    partial[i] = sum;
  }
}

}  // namespace

#define RUBRISCOPE_AS_TYPE(...) \
  if (is_double) {              \
    using T = double;           \
    __VA_ARGS__;                \
  } else {                      \
    using T = float;            \
    __VA_ARGS__;                \
  }                             \
  return cudaGetLastError()

extern "C" {

cudaError_t rubriscope_jet_input(int is_double, const JetLayout* layout, const void* x,
                                 const void* directions, std::int64_t points, std::int64_t inputs, void* rows,
                                 cudaStream_t stream) {
  RUBRISCOPE_AS_TYPE(input_kernel<T><<<grid(points * inputs), kThreads, 0, stream>>>(
      *layout, static_cast<const T*>(x), static_cast<const T*>(directions), points, inputs,
      static_cast<T*>(rows)));
}

cudaError_t rubriscope_jet_matmul(int is_double, std::int64_t m, std::int64_t n, std::int64_t k,
                                  const void* a, std::int64_t a_row, std::int64_t a_column, const void* b,
                                  std::int64_t b_row, std::int64_t b_column, void* c, std::int64_t slices,
                                  cudaStream_t stream) {
  const dim3 where(blocks(m, kTile), blocks(n, kTile), static_cast<unsigned>(slices));
  const std::int64_t slice = (k + slices - 1) / slices;
  RUBRISCOPE_AS_TYPE(matmul_kernel<T><<<where, kThreads, 0, stream>>>(
      m, n, k, static_cast<const T*>(a), a_row, a_column, static_cast<const T*>(b), b_row, b_column,
      static_cast<T*>(c), slice));
}

cudaError_t rubriscope_jet_activate(int is_double, const JetLayout* layout, std::int64_t points,
                                    std::int64_t width, const void* bias, void* z, void* a,
                                    cudaStream_t stream) {
  RUBRISCOPE_AS_TYPE(activate_kernel<T><<<grid(points * width), kThreads, 0, stream>>>(
      *layout, points, width, static_cast<const T*>(bias), static_cast<T*>(z), static_cast<T*>(a)));
}

cudaError_t rubriscope_jet_adjoint(int is_double, const JetLayout* layout, std::int64_t points,
                                   std::int64_t width, const void* z, void* bar, cudaStream_t stream) {
  RUBRISCOPE_AS_TYPE(adjoint_kernel<T><<<grid(points * width), kThreads, 0, stream>>>(
      *layout, points, width, static_cast<const T*>(z), static_cast<T*>(bar)));
}

cudaError_t rubriscope_jet_rows(int is_double, std::int64_t channels, std::int64_t points,
                                std::int64_t outputs, std::int64_t begin, std::int64_t total, void* tensor,
                                void* rows, int to_rows, cudaStream_t stream) {
  RUBRISCOPE_AS_TYPE(rows_kernel<T><<<grid(channels * points * outputs), kThreads, 0, stream>>>(
      channels, points, outputs, begin, total, static_cast<T*>(tensor), static_cast<T*>(rows), to_rows != 0));
}

cudaError_t rubriscope_jet_add_slices(int is_double, std::int64_t count, std::int64_t slices,
                                      const void* partial, double* sums, cudaStream_t stream) {
  RUBRISCOPE_AS_TYPE(add_slices_kernel<T><<<grid(count), kThreads, 0, stream>>>(
      count, slices, static_cast<const T*>(partial), sums));
}

cudaError_t rubriscope_jet_bias_slices(int is_double, std::int64_t channels, std::int64_t points,
                                       std::int64_t width, std::int64_t slices, const void* bar,
                                       void* partial, cudaStream_t stream) {
  RUBRISCOPE_AS_TYPE(bias_slices_kernel<T><<<grid(slices * width), kThreads, 0, stream>>>(
      channels, points, width, slices, static_cast<const T*>(bar), static_cast<T*>(partial)));
}
}
