// The way back from nearest pairs to the points: a gather, every point's pairs in a fixed order.
#include <cub/device/device_radix_sort.cuh>

#include "hausdorff.h"
#include "hausdorff_parts.cuh"
#include "rubriscope/ops/hausdorff/pair_gradient.h"

namespace {

using rubriscope::cuda::blocks_for;

constexpr int kThreads = 256;

/// Each b's neighbour among the a of all items as a key, and b's own number.
__global__ void inverse_keys(RubriscopeHausdorffBackward args) {
  const std::int64_t at = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (at >= args.batch * args.m) return;
  const std::int64_t near = args.near_b[at];
  const bool there = near >= 0 && near < args.n;
  args.keys[at] = there ? static_cast<std::uint64_t>(at / args.m * args.n + near) : ~0ull;
  args.values[at] = static_cast<std::uint32_t>(at);
}

/// A thread an a: its own pair, then those whose neighbour it is, in their order.
template <class Real>
__global__ void gather(RubriscopeHausdorffBackward args, const std::uint64_t* keys,
                       const std::uint32_t* values) {
  const std::int64_t at = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (at >= args.batch * args.n) return;
  const std::int64_t item = at / args.n, d = args.dimensions;
  const Real* const a = static_cast<const Real*>(args.a) + at * d;
  const Real* const b = static_cast<const Real*>(args.b) + item * args.m * d;
  const auto gradient = static_cast<double>(static_cast<const Real*>(args.gradient)[item]);
  double* const sum = args.sums + at * d;
  for (std::int64_t k = 0; k < d; ++k) sum[k] = 0;
  const std::int64_t own = args.near_a[at];
  const bool squared = args.squared != 0;
  if (own >= 0 && own < args.m) {
    rubriscope::ops::add_pair_gradient(a, b + own * d, d, squared, args.weight_a[at] * gradient, sum);
  }
  std::int64_t low = 0, high = args.batch * args.m;
  while (low < high) {
    const std::int64_t middle = (low + high) / 2;
    if (keys[middle] < static_cast<std::uint64_t>(at)) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  for (; low < args.batch * args.m && keys[low] == static_cast<std::uint64_t>(at); ++low) {
    const std::int64_t from = values[low];
    rubriscope::ops::add_pair_gradient(a, b + (from - item * args.m) * d, d, squared,
                                       args.weight_b[from] * gradient, sum);
  }
  for (std::int64_t k = 0; k < d; ++k) static_cast<Real*>(args.out)[at * d + k] = static_cast<Real>(sum[k]);
}

}  // namespace

extern "C" cudaError_t rubriscope_hausdorff_sorting_bytes(std::int64_t count, std::size_t* bytes) {
  *bytes = 0;
  if (count == 0) return cudaSuccess;
  const std::uint64_t* const keys = nullptr;
  const std::uint32_t* const values = nullptr;
  return cub::DeviceRadixSort::SortPairs(nullptr, *bytes, keys, static_cast<std::uint64_t*>(nullptr), values,
                                         static_cast<std::uint32_t*>(nullptr), count);
}

extern "C" cudaError_t rubriscope_hausdorff_backward(const RubriscopeHausdorffBackward* arguments,
                                                     cudaStream_t stream) {
  const RubriscopeHausdorffBackward& args = *arguments;
  if (args.batch * args.n == 0) return cudaSuccess;
  const std::int64_t count = args.batch * args.m;
  if (count > 0) {
    inverse_keys<<<blocks_for(count, kThreads), kThreads, 0, stream>>>(args);
    std::size_t bytes = args.sorting_bytes;
    // Stable: those of one neighbour stay in their order.
    const cudaError_t sorted = cub::DeviceRadixSort::SortPairs(
        args.sorting, bytes, static_cast<const std::uint64_t*>(args.keys), args.keys + count,
        static_cast<const std::uint32_t*>(args.values), args.values + count, count, 0, 64, stream);
    if (sorted != cudaSuccess) return sorted;
  }
  const unsigned int blocks = blocks_for(args.batch * args.n, kThreads);
  if (args.is_double) {
    gather<double><<<blocks, kThreads, 0, stream>>>(args, args.keys + count, args.values + count);
  } else {
    gather<float><<<blocks, kThreads, 0, stream>>>(args, args.keys + count, args.values + count);
  }
  return cudaGetLastError();
}
