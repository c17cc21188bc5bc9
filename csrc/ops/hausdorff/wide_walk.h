// How a warp walks through a WideTree: lane c looks at box c of a node, the nearest box that is of use to any
// lane comes next. The order decides how much is looked at, never what comes out.
//
// A `Warp` is 32 lanes in step, of which a thread holds kHeld: one on the device (cuda/warp.cuh), all of them
// in tests (tests/cpp/ops/host_warp.h). each(f) calls f(held, lane) for those it holds; ballot, least,
// greatest, broadcast and lane_of_least bring all lanes' values together; once(f) runs f one time. Control
// flow follows such common values only.
#pragma once

#include <cstdint>

#include "rubriscope/ops/hausdorff/wide_tree.h"
#include "rubriscope/ops/host_device.h"

namespace rubriscope::ops {

/// What a warp remembers of each level: place level * kLanes + lane, used by that lane alone.
template <class Real>
struct WideStack {
  static constexpr int kPlaces = kWideLevels * kLanes;
  Real* near;    ///< squared distance of the lane's box; infinite once it has been visited
  float* order;  ///< between the centres; only says what comes first
};

template <class Real>
RUBRISCOPE_HD Real wide_square(Real dx, Real dy, Real dz) {
  return dx * dx + dy * dy + dz * dz;
}

/// The squared distance from a point to box c of a node, in Real.
template <class Real>
RUBRISCOPE_HD Real to_wide_box(const Real (&q)[3], const Real* node, int c) {
  Real gap[3];
  for (int k = 0; k < 3; ++k) {
    const Real below = node[k * kLanes + c] - q[k], above = q[k] - node[(k + 3) * kLanes + c];
    const Real most = below > above ? below : above;
    gap[k] = most > 0 ? most : Real(0);
  }
  return wide_square(gap[0], gap[1], gap[2]);
}

/// The squared distance from a point to point t of a leaf, in Real.
template <class Real>
RUBRISCOPE_HD Real to_wide_point(const Real (&q)[3], const Real* leaf, int t) {
  return wide_square(q[0] - leaf[t], q[1] - leaf[kLanes + t], q[2] - leaf[2 * kLanes + t]);
}

/// Shows a visitor every leaf that is of use to it. A visitor has `low`, `high` (a box around its queries),
/// open(squared) (whether a box at that distance from it may be of use), wanted(node, first, c) (the lanes
/// that box c is of use to), and leaf(l, lanes).
template <class Warp, class Real, class Visitor>
RUBRISCOPE_WARP void walk(const Warp& warp, const WideTree<Real>& tree, const WideStack<Real>& stack,
                          Visitor& visitor) {
  int level = tree.shape.levels - 1;
  std::int64_t node = 0, before = tree.shape.before(level);
  const auto look = [&] {
    const Real* const boxes = tree.boxes + (before + node) * kWideNodeReals;
    warp.each([&](int, int lane) {
      Real near = 0, order = 0;
      for (int k = 0; k < 3; ++k) {
        const Real low = boxes[k * kLanes + lane], high = boxes[(k + 3) * kLanes + lane];
        const Real below = low - visitor.high[k], above = visitor.low[k] - high;
        const Real most = below > above ? below : above;
        const Real gap = most > 0 ? most : Real(0), off = (low + high) - (visitor.low[k] + visitor.high[k]);
        near += gap * gap;
        order += off * off;
      }
      stack.near[level * kLanes + lane] = near;
      stack.order[level * kLanes + lane] = static_cast<float>(order);
    });
  };
  look();
  for (;;) {
    const std::uint32_t open =
        warp.ballot([&](int, int lane) { return visitor.open(stack.near[level * kLanes + lane]); });
    if (open == 0) {
      if (level + 1 == tree.shape.levels) return;
      before += tree.shape.nodes(level);
      ++level;
      node /= kLanes;
      continue;
    }
    const int c = warp.lane_of_least(open, [&](int, int lane) { return stack.order[level * kLanes + lane]; });
    warp.each([&](int, int lane) {
      if (lane == c) stack.near[level * kLanes + lane] = static_cast<Real>(INFINITY);
    });
    const std::uint32_t wanted = visitor.wanted(tree.boxes + (before + node) * kWideNodeReals,
                                                tree.first + (before + node) * kLanes, c);
    if (wanted == 0) continue;
    if (level == 0) {
      visitor.leaf(node * kLanes + c, wanted);
    } else {
      --level;
      before -= tree.shape.nodes(level);
      node = node * kLanes + c;
      look();
    }
  }
}

}  // namespace rubriscope::ops
