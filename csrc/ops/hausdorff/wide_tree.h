// A bounding-volume hierarchy for warps: 32 points a leaf, 32 boxes a node, over points in Z-order, without
// pointers: box c of node b belongs to node (or leaf) 32 b + c of the level below. Storage is laid out for as
// many rows as a set may have; how many count is known on the device only. What fills it runs a warp a leaf
// or node, on the device and, in tests, on a stand-in for a warp.
#pragma once

#include <cmath>
#include <cstdint>

#include "rubriscope/ops/host_device.h"

namespace rubriscope::ops {

constexpr int kLanes = 32;                     ///< of a warp; points in a leaf, boxes in a node
constexpr int kWideLevels = 6;                 ///< 32^6 leaves
constexpr int kWideLeafReals = 3 * kLanes;     ///< x[32] y[32] z[32]
constexpr int kWideNodeReals = 6 * kLanes;     ///< low x[32] y[32] z[32], high x[32] y[32] z[32]
constexpr std::int32_t kNoPoint = 0x7fffffff;  ///< index of an unused place

/// How a set of `rows` is laid out: levels from 0, whose boxes are the leaves', to the one with a single
/// node.
struct WideShape {
  std::int64_t leaves;
  int levels;

  RUBRISCOPE_HD std::int64_t nodes(int level) const {
    return (leaves + (std::int64_t{1} << 5 * (level + 1)) - 1) >> 5 * (level + 1);
  }
  /// The nodes below a level: those of level 0 come first.
  RUBRISCOPE_HD std::int64_t before(int level) const {
    std::int64_t sum = 0;
    for (int l = 0; l < level; ++l) sum += nodes(l);
    return sum;
  }
  RUBRISCOPE_HD std::int64_t all_nodes() const { return before(levels); }
};

RUBRISCOPE_HD WideShape wide_shape(std::int64_t rows) {
  WideShape out{rows < 1 ? 1 : (rows + kLanes - 1) / kLanes, 1};
  while (out.nodes(out.levels - 1) > 1) ++out.levels;
  return out;
}

/// One set of one item.
template <class Real>
struct WideTree {
  WideShape shape;
  std::int64_t count;   ///< points in the tree
  Real* coordinates;    ///< leaf l at l * kWideLeafReals, multiplied by scale; infinite where unused
  std::int32_t* index;  ///< of leaf l's points at l * kLanes
  Real* boxes;          ///< node b of level v at (shape.before(v) + b) * kWideNodeReals
  std::int32_t* first;  ///< the lowest index in each box, likewise with kLanes
  const Real* points;   ///< as given
  std::int64_t dimensions;
  double scale;  ///< a power of two, the same for both sets

  RUBRISCOPE_HD std::int64_t leaves() const { return (count + kLanes - 1) / kLanes; }
};

/// Writes what lanes hold of a box into place `slot` of a level (which starts at node `before`).
template <class Warp, class Real, class Low, class High, class First>
RUBRISCOPE_WARP void put_wide_box(const Warp& warp, const WideTree<Real>& tree, std::int64_t before,
                                  std::int64_t slot, Low low, High high, First first) {
  Real* const box = tree.boxes + (before + slot / kLanes) * kWideNodeReals + slot % kLanes;
  for (int k = 0; k < 3; ++k) {
    const Real least = warp.template least<Real>([&](int held, int lane) { return low(k, held, lane); });
    const Real greatest =
        warp.template greatest<Real>([&](int held, int lane) { return high(k, held, lane); });
    warp.once([&] {
      box[k * kLanes] = least;
      box[(k + 3) * kLanes] = greatest;
    });
  }
  const std::int32_t lowest =
      warp.template least<std::int32_t>([&](int held, int lane) { return first(held, lane); });
  warp.once([&] { tree.first[(before + slot / kLanes) * kLanes + slot % kLanes] = lowest; });
}

/// Fills leaf `leaf` and its box, for leaves 0 … 32 * shape.nodes(0) - 1: those beyond shape.leaves are boxes
/// only. `order`: the set's rows in Z-order, those of the tree first; counted from `origin`.
template <class Warp, class Real>
RUBRISCOPE_WARP void fill_wide_leaf(const Warp& warp, const WideTree<Real>& tree, const std::uint32_t* order,
                                    std::uint32_t origin, std::int64_t leaf) {
  struct Lane {
    Real at[3];
    std::int32_t index;
  };
  Lane lanes[Warp::kHeld];
  const Real infinity = static_cast<Real>(INFINITY), scale = static_cast<Real>(tree.scale);
  warp.each([&](int held, int lane) {
    const std::int64_t place = leaf * kLanes + lane;
    Lane& mine = lanes[held];
    mine = Lane{{infinity, infinity, infinity}, kNoPoint};
    if (place < tree.count) {
      mine.index = static_cast<std::int32_t>(order[place] - origin);
      const Real* const point = tree.points + mine.index * tree.dimensions;
      for (int k = 0; k < 3; ++k) mine.at[k] = k < tree.dimensions ? point[k] * scale : Real(0);
    }
    if (leaf < tree.shape.leaves) {
      for (int k = 0; k < 3; ++k) tree.coordinates[leaf * kWideLeafReals + k * kLanes + lane] = mine.at[k];
      tree.index[place] = mine.index;
    }
  });
  put_wide_box(
      warp, tree, 0, leaf, [&](int k, int held, int) { return lanes[held].at[k]; },
      [&](int k, int held, int) { return lanes[held].index == kNoPoint ? -infinity : lanes[held].at[k]; },
      [&](int held, int) { return lanes[held].index; });
}

/// Fills box `slot` of a level ≥ 1, for slots 0 … 32 * shape.nodes(level) - 1, from the level below.
template <class Warp, class Real>
RUBRISCOPE_WARP void fill_wide_box(const Warp& warp, const WideTree<Real>& tree, int level,
                                   std::int64_t slot) {
  const std::int64_t below = tree.shape.before(level - 1), before = below + tree.shape.nodes(level - 1);
  const bool there = slot < tree.shape.nodes(level - 1);
  const Real* const node = tree.boxes + (below + (there ? slot : 0)) * kWideNodeReals;
  const std::int32_t* const first = tree.first + (below + (there ? slot : 0)) * kLanes;
  const Real infinity = static_cast<Real>(INFINITY);
  put_wide_box(
      warp, tree, before, slot,
      [&](int k, int, int lane) { return there ? node[k * kLanes + lane] : infinity; },
      [&](int k, int, int lane) { return there ? node[(k + 3) * kLanes + lane] : -infinity; },
      [&](int, int lane) { return there ? first[lane] : kNoPoint; });
}

}  // namespace rubriscope::ops
