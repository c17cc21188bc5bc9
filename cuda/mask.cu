// Hausdorff distance of two masks: surface elements, then an exact distance transform axis by axis, from near
// to far, the last axis at the other mask's surface elements only; then order statistics by bisection.
#include "mask.h"

#include "rubriscope/ops/mask/geometry.h"

namespace {

using rubriscope::ops::axis_cost;
using rubriscope::ops::between;
using rubriscope::ops::combined_cost;
using rubriscope::ops::distance_of_cost;
using rubriscope::ops::MaskConvention;
using rubriscope::ops::MaskMetric;
using rubriscope::ops::percentile_position;

using i64 = std::int64_t;
using u64 = unsigned long long;

constexpr int kThreads = 256;
constexpr int kSelectThreads = 1024;
constexpr int kNone = 0x7fffffff;

__device__ double infinity() { return __longlong_as_double(0x7ff0000000000000); }

struct Sides {
  const std::uint8_t* mask[2];
};

__device__ bool voxel(const std::uint8_t* mask, const RubriscopeMasks& m, i64 z, i64 y, i64 x) {
  if (z < 0 || y < 0 || x < 0 || z >= m.size[0] || y >= m.size[1] || x >= m.size[2]) return false;
  return mask[(z * m.size[1] + y) * m.size[2] + x] != 0;
}

// blockIdx.y is the side. A code of 0 is no surface element.
__global__ void codes_kernel(Sides sides, RubriscopeMasks m, i64 n, std::uint8_t* codes) {
  const i64 i = static_cast<i64>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= n) return;
  const std::uint8_t* mask = sides.mask[blockIdx.y];
  const i64 x = i % m.grid[2], y = i / m.grid[2] % m.grid[1], z = i / m.grid[2] / m.grid[1];
  int code = 0;
  if (m.convention == static_cast<int>(MaskConvention::deepmind)) {
    const int full = m.dimensions == 3 ? 255 : 15;
    for (i64 dz = m.dimensions == 3 ? -1 : 0; dz <= 0; ++dz) {
      for (i64 dy = -1; dy <= 0; ++dy) {
        for (i64 dx = -1; dx <= 0; ++dx) code = code << 1 | (voxel(mask, m, z + dz, y + dy, x + dx) ? 1 : 0);
      }
    }
    if (code == full) code = 0;
  } else if (voxel(mask, m, z, y, x)) {
    const bool flat = m.dimensions == 2;
    const bool inner = voxel(mask, m, z, y, x - 1) && voxel(mask, m, z, y, x + 1) &&
                       voxel(mask, m, z, y - 1, x) && voxel(mask, m, z, y + 1, x) &&
                       (flat || (voxel(mask, m, z - 1, y, x) && voxel(mask, m, z + 1, y, x)));
    code = inner ? 0 : 1;
  }
  codes[blockIdx.y * n + i] = static_cast<std::uint8_t>(code);
}

// A thread a row: voxels to the nearest surface element along x.
__global__ void rows_kernel(const std::uint8_t* codes, i64 rows, i64 length, std::int32_t* nearest) {
  const i64 row = static_cast<i64>(blockIdx.x) * kThreads + threadIdx.x;
  if (row >= rows) return;
  const std::uint8_t* in = codes + row * length;
  std::int32_t* out = nearest + row * length;
  std::int32_t away = kNone;
  for (i64 x = 0; x < length; ++x) {
    away = in[x] != 0 ? 0 : away == kNone ? kNone : away + 1;
    out[x] = away;
  }
  away = kNone;
  for (i64 x = length - 1; x >= 0; --x) {
    away = in[x] != 0 ? 0 : away == kNone ? kNone : away + 1;
    if (away < out[x]) out[x] = away;
  }
}

__global__ void planes_kernel(const std::int32_t* nearest, RubriscopeMasks m, i64 n, double* planes) {
  const i64 i = static_cast<i64>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= n) return;
  const auto metric = static_cast<MaskMetric>(m.metric);
  const std::int32_t* side = nearest + blockIdx.y * n;
  const i64 stride = m.grid[2], count = m.grid[1], y = i / stride % count;
  double best = infinity();
  for (i64 offset = 0; offset < count; ++offset) {
    const double step = axis_cost(metric, offset, m.unit[1]);
    if (!(best > step)) break;
    for (int way = 0; way < (offset == 0 ? 1 : 2); ++way) {
      const i64 there = way == 0 ? y - offset : y + offset;
      if (there < 0 || there >= count) continue;
      const std::int32_t x = side[i + (there - y) * stride];
      if (x != kNone) best = fmin(best, combined_cost(metric, axis_cost(metric, x, m.unit[2]), step));
    }
  }
  planes[blockIdx.y * n + i] = best;
}

// From the surface elements of side blockIdx.y to the other. The order in which results are appended is not
// fixed; what is made of them does not depend on it.
__global__ void costs_kernel(const std::uint8_t* codes, const double* planes, RubriscopeMasks m, i64 n,
                             double* costs, std::uint8_t* cost_codes, std::int32_t* counters) {
  const i64 i = static_cast<i64>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= n) return;
  const i64 from = blockIdx.y * n, to = (1 - blockIdx.y) * n;
  const std::uint8_t code = codes[from + i];
  if (code == 0) return;
  const auto metric = static_cast<MaskMetric>(m.metric);
  const i64 stride = m.grid[1] * m.grid[2], count = m.grid[0], z = i / stride;
  double best = infinity();
  for (i64 offset = 0; offset < count; ++offset) {
    const double step = axis_cost(metric, offset, m.unit[0]);
    if (!(best > step)) break;
    for (int way = 0; way < (offset == 0 ? 1 : 2); ++way) {
      const i64 there = way == 0 ? z - offset : z + offset;
      if (there < 0 || there >= count) continue;
      best = fmin(best, combined_cost(metric, planes[to + i + (there - z) * stride], step));
    }
  }
  const int place = atomicAdd(&counters[blockIdx.y], 1);
  costs[from + place] = best;
  cost_codes[from + place] = code;
}

struct Lists {
  const double* costs[2];
  const std::uint8_t* codes[2];
  int count[2];
  int used;  // lists that are taken together
};

// How many costs are at most `bound` (as bits, whose order is that of the numbers), by code.
__device__ void count_by_code(const Lists& lists, u64 bound, unsigned int* counts) {
  __syncthreads();
  for (int code = threadIdx.x; code < 256; code += kSelectThreads) counts[code] = 0;
  __syncthreads();
  for (int list = 0; list < lists.used; ++list) {
    for (int i = threadIdx.x; i < lists.count[list]; i += kSelectThreads) {
      if (static_cast<u64>(__double_as_longlong(lists.costs[list][i])) <= bound) {
        atomicAdd(&counts[lists.codes[list][i]], 1u);
      }
    }
  }
  __syncthreads();
}

// The weight of what was counted: an area a code, or 1. In the order of the codes.
__device__ double weight_of(const unsigned int* counts, const double* areas) {
  double sum = 0;
  for (int code = 0; code < 256; ++code) {
    if (counts[code] != 0) sum += counts[code] * (areas == nullptr ? 1.0 : areas[code]);
  }
  return sum;
}

// The least cost at which the weight of those up to it, divided by `total`, is at least `share`.
__device__ double least_cost(const Lists& lists, double share, double total, const double* areas,
                             unsigned int* counts) {
  u64 low = 0, high = 0x7ff0000000000000ull;
  while (low < high) {
    const u64 middle = low + (high - low) / 2;
    count_by_code(lists, middle, counts);
    if (weight_of(counts, areas) / total >= share) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  return __longlong_as_double(static_cast<long long>(low));
}

__device__ double percentile_of(const Lists& lists, const RubriscopeMasks& m, const double* areas,
                                unsigned int* counts) {
  const auto metric = static_cast<MaskMetric>(m.metric);
  const auto convention = static_cast<MaskConvention>(m.convention);
  i64 count = 0;
  for (int list = 0; list < lists.used; ++list) count += lists.count[list];
  const auto ranked = [&](i64 rank) {
    return distance_of_cost(metric, least_cost(lists, static_cast<double>(rank + 1), 1, nullptr, counts),
                            m.scale);
  };
  if (m.percentile < 0) return ranked(count - 1);
  if (convention == MaskConvention::deepmind) {
    // A share of 0 is reached at once: by the least cost, not by 0.
    if (m.percentile == 0) return ranked(0);
    count_by_code(lists, 0x7ff0000000000000ull, counts);
    const double total = weight_of(counts, areas);
    const double cost = least_cost(lists, m.percentile / 100, total, areas, counts);
    return distance_of_cost(metric, cost, m.scale);
  }
  const double position = percentile_position(convention, m.percentile, count);
  i64 low = static_cast<i64>(floor(position));
  low = low < 0 ? 0 : low > count - 1 ? count - 1 : low;
  const double below = ranked(low);
  if (low + 1 == count) return below;
  return between(below, ranked(low + 1), position - static_cast<double>(low));
}

__global__ void select_kernel(RubriscopeMasks m, RubriscopeMaskScratch scratch, i64 n, const double* areas,
                              double* out) {
  __shared__ unsigned int counts[256];
  const int count[2] = {scratch.counters[0], scratch.counters[1]};
  double found = 0;
  if (count[0] == 0 || count[1] == 0) {
    found = count[0] == count[1] ? __longlong_as_double(0x7ff8000000000000) : infinity();
  } else if (m.convention == static_cast<int>(MaskConvention::medpy) && m.directed == 0) {
    const Lists both{{scratch.costs, scratch.costs + n},
                     {scratch.cost_codes, scratch.cost_codes + n},
                     {count[0], count[1]},
                     2};
    found = percentile_of(both, m, areas, counts);
  } else {
    for (int way = 0; way < (m.directed != 0 ? 1 : 2); ++way) {
      const Lists one{
          {scratch.costs + way * n, nullptr}, {scratch.cost_codes + way * n, nullptr}, {count[way], 0}, 1};
      found = fmax(found, percentile_of(one, m, areas, counts));
    }
  }
  if (threadIdx.x == 0) *out = found;
}

unsigned blocks(i64 count) { return static_cast<unsigned>((count + kThreads - 1) / kThreads); }

}  // namespace

extern "C" cudaError_t rubriscope_mask_distance(const std::uint8_t* prediction, const std::uint8_t* target,
                                                const RubriscopeMasks* masks,
                                                const RubriscopeMaskScratch* scratch, const double* areas,
                                                double* out, cudaStream_t stream) {
  const RubriscopeMasks& m = *masks;
  const i64 n = m.grid[0] * m.grid[1] * m.grid[2];
  const cudaError_t cleared = cudaMemsetAsync(scratch->counters, 0, 2 * sizeof(std::int32_t), stream);
  if (cleared != cudaSuccess) return cleared;
  if (m.size[0] > 0 && m.size[1] > 0 && m.size[2] > 0) {
    const dim3 elements(blocks(n), 2);
    const i64 rows = 2 * m.grid[0] * m.grid[1];
    codes_kernel<<<elements, kThreads, 0, stream>>>(Sides{{prediction, target}}, m, n, scratch->codes);
    rows_kernel<<<blocks(rows), kThreads, 0, stream>>>(scratch->codes, rows, m.grid[2], scratch->nearest);
    planes_kernel<<<elements, kThreads, 0, stream>>>(scratch->nearest, m, n, scratch->planes);
    costs_kernel<<<elements, kThreads, 0, stream>>>(scratch->codes, scratch->planes, m, n, scratch->costs,
                                                    scratch->cost_codes, scratch->counters);
  }
  select_kernel<<<1, kSelectThreads, 0, stream>>>(m, *scratch, n, areas, out);
  return cudaGetLastError();
}
