// Statistics of a tensor in one pass: a block a piece, pieces combined in order by one block.
#include "stats.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "rubriscope/ops/stats/moments.h"

namespace {

using rubriscope::ops::bin_of_exponent_byte;
using rubriscope::ops::combined;
using rubriscope::ops::exponent_byte_of_double;
using rubriscope::ops::kMagnitudeBins;
using rubriscope::ops::Moments;
using rubriscope::ops::shifted_moments;

constexpr int kThreads = 256;
constexpr int kEach = 32;  // elements a thread takes
constexpr std::int64_t kPiece = kThreads * kEach;

__device__ double value_of(const float* data, std::int64_t i) { return data[i]; }
__device__ double value_of(const double* data, std::int64_t i) { return data[i]; }
__device__ double value_of(const __half* data, std::int64_t i) { return __half2float(data[i]); }
__device__ double value_of(const __nv_bfloat16* data, std::int64_t i) { return __bfloat162float(data[i]); }

struct Part {
  Moments moments;
  double least, greatest;
  std::int64_t nan, inf;
};

__device__ Part combined_parts(const Part& a, const Part& b) {
  return {combined(a.moments, b.moments), fmin(a.least, b.least), fmax(a.greatest, b.greatest), a.nan + b.nan,
          a.inf + b.inf};
}

__device__ Part nothing() {
  return {
      {0, 0, 0}, __longlong_as_double(0x7ff0000000000000), -__longlong_as_double(0x7ff0000000000000), 0, 0};
}

// A fixed tree over the block's threads; the result is thread 0's.
__device__ Part over_block(Part mine, Part* shared) {
  shared[threadIdx.x] = mine;
  for (int half = kThreads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.x < half)
      shared[threadIdx.x] = combined_parts(shared[threadIdx.x], shared[threadIdx.x + half]);
  }
  return shared[0];
}

template <class T>
__global__ void pieces_kernel(const T* data, std::int64_t count, double* scratch,
                              unsigned long long* counts) {
  __shared__ Part shared[kThreads];
  __shared__ unsigned int bins[kMagnitudeBins + 1];  // the last for zeros
  for (int bin = threadIdx.x; bin <= kMagnitudeBins; bin += kThreads) bins[bin] = 0;
  __syncthreads();
  const std::int64_t begin = static_cast<std::int64_t>(blockIdx.x) * kPiece;
  Part part = nothing();
  double shift = 0, sum = 0, squares = 0, finite = 0;
  for (int k = 0; k < kEach; ++k) {
    const std::int64_t i = begin + static_cast<std::int64_t>(k) * kThreads + threadIdx.x;
    if (i >= count) break;
    const double x = value_of(data, i);
    const auto bits = static_cast<unsigned long long>(__double_as_longlong(x)) & 0x7fffffffffffffffull;
    if (bits >= 0x7ff0000000000000ull) {
      if (bits > 0x7ff0000000000000ull) {
        ++part.nan;
      } else {
        ++part.inf;
      }
      continue;
    }
    const int byte = exponent_byte_of_double(static_cast<int>(bits >> 52));
    atomicAdd(&bins[bits == 0 ? kMagnitudeBins : bin_of_exponent_byte(byte)], 1u);  // integers: any order
    if (finite == 0) shift = x;
    finite += 1;
    sum += x - shift;
    squares += (x - shift) * (x - shift);
    part.least = fmin(part.least, x);
    part.greatest = fmax(part.greatest, x);
  }
  part.moments = shifted_moments(finite, shift, sum, squares);
  const Part all = over_block(part, shared);
  if (threadIdx.x == 0) {
    double* out = scratch + static_cast<std::int64_t>(blockIdx.x) * kRubriscopeStatsScratch;
    out[0] = all.moments.count;
    out[1] = all.moments.mean;
    out[2] = all.moments.squares;
    out[3] = all.least;
    out[4] = all.greatest;
    out[5] = static_cast<double>(all.nan);
    out[6] = static_cast<double>(all.inf);
  }
  __syncthreads();
  for (int bin = threadIdx.x; bin <= kMagnitudeBins; bin += kThreads) {
    if (bins[bin] != 0) {
      atomicAdd(&counts[bin == kMagnitudeBins ? 3 : 4 + bin], static_cast<unsigned long long>(bins[bin]));
    }
  }
}

__global__ void combine_kernel(const double* scratch, std::int64_t pieces, std::int64_t count,
                               double* moments, long long* counts) {
  __shared__ Part shared[kThreads];
  // Each thread takes consecutive pieces, so that the order is theirs.
  const std::int64_t each = (pieces + kThreads - 1) / kThreads;
  Part part = nothing();
  for (std::int64_t k = 0; k < each; ++k) {
    const std::int64_t piece = threadIdx.x * each + k;
    if (piece >= pieces) break;
    const double* in = scratch + piece * kRubriscopeStatsScratch;
    part = combined_parts(part, {{in[0], in[1], in[2]},
                                 in[3],
                                 in[4],
                                 static_cast<std::int64_t>(in[5]),
                                 static_cast<std::int64_t>(in[6])});
  }
  const Part all = over_block(part, shared);
  if (threadIdx.x == 0) {
    const double nan = __longlong_as_double(0x7ff8000000000000);
    const double finite = all.moments.count;
    moments[0] = finite > 0 ? all.moments.mean : nan;
    moments[1] = finite > 1 ? all.moments.squares / (finite - 1) : nan;
    moments[2] = finite > 0 ? all.least : nan;
    moments[3] = finite > 0 ? all.greatest : nan;
    counts[0] = count;
    counts[1] = all.nan;
    counts[2] = all.inf;
  }
}

template <class T>
void launch_pieces(const void* data, std::int64_t count, double* scratch, std::int64_t* counts,
                   cudaStream_t stream) {
  pieces_kernel<<<static_cast<unsigned>(rubriscope_stats_pieces(count)), kThreads, 0, stream>>>(
      static_cast<const T*>(data), count, scratch, reinterpret_cast<unsigned long long*>(counts));
}

}  // namespace

extern "C" std::int64_t rubriscope_stats_pieces(std::int64_t count) { return (count + kPiece - 1) / kPiece; }

extern "C" cudaError_t rubriscope_tensor_stats(const void* data, int type, std::int64_t count,
                                               double* scratch, double* moments, std::int64_t* counts,
                                               cudaStream_t stream) {
  const cudaError_t cleared = cudaMemsetAsync(counts, 0, (4 + kMagnitudeBins) * sizeof(std::int64_t), stream);
  if (cleared != cudaSuccess) return cleared;
  const std::int64_t pieces = rubriscope_stats_pieces(count);
  if (pieces > 0) {
    if (type == 0) launch_pieces<float>(data, count, scratch, counts, stream);
    if (type == 1) launch_pieces<double>(data, count, scratch, counts, stream);
    if (type == 2) launch_pieces<__half>(data, count, scratch, counts, stream);
    if (type == 3) launch_pieces<__nv_bfloat16>(data, count, scratch, counts, stream);
  }
  combine_kernel<<<1, kThreads, 0, stream>>>(scratch, pieces, count, moments,
                                             reinterpret_cast<long long*>(counts));
  return cudaGetLastError();
}
