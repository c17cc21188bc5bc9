// A warp of 32 lanes on the CPU: one thread holds them all and runs them in turn, so that what the CUDA
// kernels do (csrc/ops/hausdorff/wide_walk.h) runs where there is no GPU. Also the steps between the kernels.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <numeric>
#include <vector>

#include "rubriscope/ops/hausdorff/wide_search.h"
#include "rubriscope/ops/hausdorff/z_order.h"

namespace rubriscope::ops {

struct HostWarp {
  static constexpr int kHeld = kLanes;
  // Measures of the work, which for a GPU is counted by warps.
  mutable std::int64_t votes = 0;
  mutable std::int64_t steps = 0;    ///< boxes looked at after they were open
  mutable std::int64_t scans = 0;    ///< leaves that many lanes wanted
  mutable std::int64_t singles = 0;  ///< lanes that wanted the other leaves

  template <class F>
  void each(F f) const {
    for (int lane = 0; lane < kLanes; ++lane) f(lane, lane);
  }
  template <class F>
  void once(F f) const {
    f();
  }
  template <class F>
  std::uint32_t ballot(F f) const {
    ++votes;
    std::uint32_t bits = 0;
    for (int lane = 0; lane < kLanes; ++lane) bits |= std::uint32_t{f(lane, lane)} << lane;
    return bits;
  }
  template <class T, class F>
  T least(F f) const {
    T value = f(0, 0);
    for (int lane = 1; lane < kLanes; ++lane) value = std::min<T>(value, f(lane, lane));
    return value;
  }
  template <class T, class F>
  T greatest(F f) const {
    T value = f(0, 0);
    for (int lane = 1; lane < kLanes; ++lane) value = std::max<T>(value, f(lane, lane));
    return value;
  }
  template <class T, class F>
  T broadcast(int lane, F f) const {
    return f(lane, lane);
  }
  template <class F>
  int lane_of_least(std::uint32_t bits, F f) const {
    ++steps;
    int best = lowest(bits);
    for (; bits != 0; bits &= bits - 1) {
      if (f(lowest(bits), lowest(bits)) < f(best, best)) best = lowest(bits);
    }
    return best;
  }
  /// Asked once a leaf, of the lanes that want it.
  int count(std::uint32_t bits) const {
    const int lanes = std::popcount(bits);
    (lanes <= kFewLanes ? singles : scans) += lanes <= kFewLanes ? lanes : 1;
    return lanes;
  }
  int lowest(std::uint32_t bits) const { return std::countr_zero(bits); }
  template <class Real>
  void load_group(const Real* from, Real (&to)[kNearestGroup]) const {
    std::copy_n(from, kNearestGroup, to);
  }
};

/// The rows of all segments in Z-order, as two stable sorts make it. `key(row)` is a ZKey.
template <class Key>
std::vector<std::uint32_t> z_order(std::int64_t rows, Key key) {
  std::vector<ZKey> keys(static_cast<std::size_t>(rows));
  std::vector<std::uint32_t> order(keys.size());
  for (std::int64_t row = 0; row < rows; ++row) keys[static_cast<std::size_t>(row)] = key(row);
  std::iota(order.begin(), order.end(), 0u);
  std::stable_sort(order.begin(), order.end(),
                   [&](std::uint32_t a, std::uint32_t b) { return keys[a].low < keys[b].low; });
  std::stable_sort(order.begin(), order.end(),
                   [&](std::uint32_t a, std::uint32_t b) { return keys[a].high < keys[b].high; });
  return order;
}

/// Room for a warp's walk.
template <class Real>
struct HostStack {
  std::vector<Real> near = std::vector<Real>(WideStack<Real>::kPlaces);
  std::vector<float> order = std::vector<float>(WideStack<Real>::kPlaces);
  WideStack<Real> stack{near.data(), order.data()};
};

}  // namespace rubriscope::ops
