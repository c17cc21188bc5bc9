// The warp that csrc/ops/hausdorff/wide_walk.h walks with: the calling thread holds one lane. All 32 lanes
// must be here.
#pragma once

#include <cstdint>

#include "rubriscope/ops/hausdorff/nearest.h"

namespace rubriscope::cuda {

struct Warp {
  static constexpr int kHeld = 1;
  static constexpr unsigned int kAll = ~0u;

  __device__ __forceinline__ static int lane() { return static_cast<int>(threadIdx.x % 32); }

  template <class F>
  __device__ __forceinline__ void each(F f) const {
    f(0, lane());
  }
  template <class F>
  __device__ __forceinline__ void once(F f) const {
    if (lane() == 0) f();
  }
  template <class F>
  __device__ __forceinline__ std::uint32_t ballot(F f) const {
    return __ballot_sync(kAll, f(0, lane()));
  }
  template <class T, class F>
  __device__ __forceinline__ T least(F f) const {
    return preferred<T>(f(0, lane()), [](T held, T other) { return other < held; });
  }
  template <class T, class F>
  __device__ __forceinline__ T greatest(F f) const {
    return preferred<T>(f(0, lane()), [](T held, T other) { return held < other; });
  }
  template <class T, class F>
  __device__ __forceinline__ T broadcast(int from, F f) const {
    return __shfl_sync(kAll, f(0, lane()), from);
  }
  /// Which of the lanes in `bits` has the least of a number that is not negative: in one instruction, the
  /// number without its lowest five bits, which name the lane.
  template <class F>
  __device__ __forceinline__ int lane_of_least(std::uint32_t bits, F f) const {
    const std::uint32_t order = (__float_as_uint(f(0, lane())) & ~31u) | static_cast<std::uint32_t>(lane());
    return static_cast<int>(__reduce_min_sync(kAll, (bits >> lane() & 1) != 0 ? order : kAll) & 31u);
  }
  __device__ __forceinline__ int count(std::uint32_t bits) const { return __popc(bits); }
  __device__ __forceinline__ int lowest(std::uint32_t bits) const {
    return __ffs(static_cast<int>(bits)) - 1;
  }

  /// Four numbers that lie on a boundary of sixteen bytes, the same for every lane.
  __device__ __forceinline__ void load_group(const float* from, float (&to)[ops::kNearestGroup]) const {
    const float4 all = *reinterpret_cast<const float4*>(from);
    to[0] = all.x;
    to[1] = all.y;
    to[2] = all.z;
    to[3] = all.w;
  }
  __device__ __forceinline__ void load_group(const double* from, double (&to)[ops::kNearestGroup]) const {
    const double2 low = reinterpret_cast<const double2*>(from)[0];
    const double2 high = reinterpret_cast<const double2*>(from)[1];
    to[0] = low.x;
    to[1] = low.y;
    to[2] = high.x;
    to[3] = high.y;
  }

 private:
  /// Of all lanes' values the one that no other is better than.
  template <class T, class Better>
  __device__ __forceinline__ static T preferred(T value, Better better) {
#pragma unroll
    for (int step = 16; step > 0; step /= 2) {
      const T other = __shfl_xor_sync(kAll, value, step);
      value = better(value, other) ? other : value;
    }
    return value;
  }
};

}  // namespace rubriscope::cuda
