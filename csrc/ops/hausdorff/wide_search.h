// Nearest neighbours between two WideTrees: 32 queries that lie next to each other in Z-order go through the
// targets as one warp. As search.simd.cpp does on the CPU: pruning in Real, with a bound on its rounding;
// what that leaves open is decided in float64, the lowest index where equal.
#pragma once

#include <cstdint>

#include "rubriscope/ops/hausdorff/nearest.h"
#include "rubriscope/ops/hausdorff/pair.h"
#include "rubriscope/ops/hausdorff/wide_walk.h"

namespace rubriscope::ops {

/// Up to so many lanes that want a leaf are served one by one, a lane a target; more of them each look at all
/// of its targets.
constexpr int kFewLanes = 6;

/// The first pass, in Real. `Each`: all want their nearest target, and whether another one comes near it;
/// otherwise the nearest distance only, and a query is given up once it is below `floor`.
template <class Real, class Warp, bool Each>
class WidePacket {
 public:
  struct Lane {
    Real q[3];
    Nearest<Real> nearest;  ///< `where`: 32 * leaf + place
    Real limit;             ///< a box is of use below this; -1: none is
    std::int32_t index;     ///< kNoPoint: no query, or given up
  };

  RUBRISCOPE_WARP WidePacket(const Warp& warp, const WideTree<Real>& queries, const WideTree<Real>& targets,
                             std::int64_t packet, Real floor)
      : warp_(warp), tree_(targets), error_(rounding<Real>(targets.dimensions)), floor_(floor) {
    const Real infinity = static_cast<Real>(INFINITY);
    const Real* const from = queries.coordinates + packet * kWideLeafReals;
    warp.each([&](int held, int lane) {
      Lane& mine = lanes[held];
      mine.index = queries.index[packet * kLanes + lane];
      for (int k = 0; k < 3; ++k) mine.q[k] = mine.index == kNoPoint ? Real(0) : from[k * kLanes + lane];
      mine.nearest = Nearest<Real>{infinity, infinity, 0};
      mine.limit = mine.index == kNoPoint ? Real(-1) : infinity;
    });
    for (int k = 0; k < 3; ++k) {
      low[k] = warp.template least<Real>(
          [&](int held, int) { return lanes[held].index == kNoPoint ? infinity : lanes[held].q[k]; });
      high[k] = warp.template greatest<Real>(
          [&](int held, int) { return lanes[held].index == kNoPoint ? -infinity : lanes[held].q[k]; });
    }
    bound_ = infinity;
  }

  RUBRISCOPE_WARP bool open(Real squared) const { return squared < bound_; }

  RUBRISCOPE_WARP std::uint32_t wanted(const Real* node, const std::int32_t*, int c) const {
    return warp_.ballot(
        [&](int held, int) { return to_wide_box(lanes[held].q, node, c) < lanes[held].limit; });
  }

  RUBRISCOPE_WARP void leaf(std::int64_t l, std::uint32_t wanted) {
    const Real* const points = tree_.coordinates + l * kWideLeafReals;
    if (warp_.count(wanted) <= kFewLanes) {
      for (; wanted != 0; wanted &= wanted - 1) one_by_one(points, l, warp_.lowest(wanted));
    } else {
      warp_.each([&](int held, int lane) {
        Lane& mine = lanes[held];
        if ((wanted >> lane & 1) == 0) return;
        for (int t = 0; t < kLanes; t += kNearestGroup) {
          Real x[kNearestGroup], y[kNearestGroup], z[kNearestGroup], squared[kNearestGroup];
          warp_.load_group(points + t, x);
          warp_.load_group(points + kLanes + t, y);
          warp_.load_group(points + 2 * kLanes + t, z);
          for (int g = 0; g < kNearestGroup; ++g) {
            squared[g] = wide_square(mine.q[0] - x[g], mine.q[1] - y[g], mine.q[2] - z[g]);
          }
          if constexpr (Each) {
            mine.nearest.see_group(squared, l * kLanes + t);
          } else {
            mine.nearest.best = std::fmin(mine.nearest.best, std::fmin(std::fmin(squared[0], squared[1]),
                                                                       std::fmin(squared[2], squared[3])));
          }
        }
        settle(mine);
      });
    }
    bound_ = warp_.template greatest<Real>([&](int held, int) { return lanes[held].limit; });
  }

  Lane lanes[Warp::kHeld];
  Real low[3], high[3];

 private:
  /// One lane's query against the leaf's points, a lane a point.
  RUBRISCOPE_WARP void one_by_one(const Real* points, std::int64_t l, int of) {
    Real q[3], squared[Warp::kHeld];
    for (int k = 0; k < 3; ++k) {
      q[k] = warp_.template broadcast<Real>(of, [&](int held, int) { return lanes[held].q[k]; });
    }
    warp_.each([&](int held, int lane) { squared[held] = to_wide_point(q, points, lane); });
    const Real least = warp_.template least<Real>([&](int held, int) { return squared[held]; });
    int where = 0;
    Real next = 0;
    if constexpr (Each) {
      where = warp_.lowest(warp_.ballot([&](int held, int) { return squared[held] == least; }));
      next = warp_.template least<Real>(
          [&](int held, int lane) { return lane == where ? static_cast<Real>(INFINITY) : squared[held]; });
    }
    warp_.each([&](int held, int lane) {
      if (lane != of) return;
      Lane& mine = lanes[held];
      if constexpr (Each) {
        mine.nearest.see(least, l * kLanes + where);
        mine.nearest.see(next, l * kLanes + where);  // not below `least`: goes to second
      } else {
        mine.nearest.best = std::fmin(mine.nearest.best, least);
      }
      settle(mine);
    });
  }

  RUBRISCOPE_WARP void settle(Lane& mine) const {
    const Real best = mine.nearest.best;
    if constexpr (Each) {
      // With two to choose from float64 decides, so that only the least distance is still of interest.
      const Real loose = loosen(best, error_);
      mine.limit = mine.nearest.second <= loose ? best : loose;
    } else if (best < floor_) {
      mine.index = kNoPoint;
      mine.limit = -1;
    } else {
      mine.limit = best;
    }
  }

  const Warp& warp_;
  const WideTree<Real>& tree_;
  const Rounding<Real> error_;
  const Real floor_;
  Real bound_;
};

/// The second pass: some of the queries' nearest targets in float64, the lowest index where equal, among
/// those whose distance in Real is at most a bound that the true one meets.
template <class Real, class Warp>
class WideExact {
 public:
  struct Lane {
    Real q[3];
    Real bound;          ///< -1: nothing is wanted
    std::int32_t query;  ///< index
    double best;
    std::int32_t nearest;
  };

  /// `chosen`: the lanes of the packet that are looked at.
  template <bool Each>
  RUBRISCOPE_WARP WideExact(const Warp& warp, const WideTree<Real>& queries, const WideTree<Real>& targets,
                            const WidePacket<Real, Warp, Each>& packet, std::uint32_t chosen)
      : warp_(warp), queries_(queries), tree_(targets), error_(rounding<Real>(targets.dimensions)) {
    const Real infinity = static_cast<Real>(INFINITY);
    warp.each([&](int held, int lane) {
      const auto& from = packet.lanes[held];
      Lane& mine = lanes[held];
      for (int k = 0; k < 3; ++k) mine.q[k] = from.q[k];
      mine.query = from.index;
      mine.bound = (chosen >> lane & 1) != 0 ? loosen(from.nearest.best, error_) : Real(-1);
      mine.best = INFINITY;
      mine.nearest = kNoPoint;
    });
    for (int k = 0; k < 3; ++k) {
      low[k] = warp.template least<Real>(
          [&](int held, int) { return lanes[held].bound < 0 ? infinity : lanes[held].q[k]; });
      high[k] = warp.template greatest<Real>(
          [&](int held, int) { return lanes[held].bound < 0 ? -infinity : lanes[held].q[k]; });
    }
    find_bound();
  }

  RUBRISCOPE_WARP bool open(Real squared) const { return squared <= bound_; }

  RUBRISCOPE_WARP std::uint32_t wanted(const Real* node, const std::int32_t* first, int c) const {
    return warp_.ballot([&](int held, int) {
      const Lane& mine = lanes[held];
      return to_wide_box(mine.q, node, c) <= mine.bound && !settled(mine, node, c, first[c]);
    });
  }

  RUBRISCOPE_WARP void leaf(std::int64_t l, std::uint32_t wanted) {
    const Real* const points = tree_.coordinates + l * kWideLeafReals;
    const std::int32_t* const index = tree_.index + l * kLanes;
    if (warp_.count(wanted) <= kFewLanes) {
      for (; wanted != 0; wanted &= wanted - 1) one_by_one(points, index, warp_.lowest(wanted));
    } else {
      warp_.each([&](int held, int lane) {
        Lane& mine = lanes[held];
        if ((wanted >> lane & 1) == 0) return;
        for (int t = 0; t < kLanes; ++t) {
          if (to_wide_point(mine.q, points, t) <= mine.bound)
            see(mine, squared(mine.query, index[t]), index[t]);
        }
      });
    }
    find_bound();
  }

  Lane lanes[Warp::kHeld];
  Real low[3], high[3];

 private:
  /// Whether box c can hold neither a nearer target nor an equally near one of a lower index. Where nothing
  /// is scaled, the box's nearest point is computed like a target, and rounding is monotone.
  RUBRISCOPE_WARP bool settled(const Lane& mine, const Real* node, int c, std::int32_t first) const {
    if (mine.nearest == kNoPoint || first < mine.nearest || tree_.scale != 1) return false;
    double sum = 0;
    for (int k = 0; k < 3; ++k) {  // coordinates that there are not are 0
      const Real low_k = node[k * kLanes + c], high_k = node[(k + 3) * kLanes + c];
      const Real at = mine.q[k] < low_k ? low_k : mine.q[k] > high_k ? high_k : mine.q[k];
      sum = add_square(sum, static_cast<double>(mine.q[k]) - static_cast<double>(at));
    }
    return sum >= mine.best;
  }

  RUBRISCOPE_WARP double squared(std::int32_t query, std::int32_t target) const {
    return squared_distance(queries_.points + query * tree_.dimensions,
                            tree_.points + target * tree_.dimensions, tree_.dimensions, tree_.scale);
  }

  RUBRISCOPE_WARP void see(Lane& mine, double squared, std::int32_t target) const {
    if (!(squared < mine.best || (squared == mine.best && target < mine.nearest))) return;
    mine.best = squared;
    mine.nearest = target;
    const Real limit = loosen(static_cast<Real>(squared), error_);
    mine.bound = limit < mine.bound ? limit : mine.bound;
  }

  RUBRISCOPE_WARP void one_by_one(const Real* points, const std::int32_t* index, int of) {
    Real q[3];
    for (int k = 0; k < 3; ++k) {
      q[k] = warp_.template broadcast<Real>(of, [&](int held, int) { return lanes[held].q[k]; });
    }
    const Real bound = warp_.template broadcast<Real>(of, [&](int held, int) { return lanes[held].bound; });
    const auto query =
        warp_.template broadcast<std::int32_t>(of, [&](int held, int) { return lanes[held].query; });
    double found[Warp::kHeld];
    warp_.each([&](int held, int lane) {
      found[held] = to_wide_point(q, points, lane) <= bound ? squared(query, index[lane])
                                                            : static_cast<double>(INFINITY);
    });
    const double least = warp_.template least<double>([&](int held, int) { return found[held]; });
    const auto target = warp_.template least<std::int32_t>(
        [&](int held, int lane) { return found[held] == least ? index[lane] : kNoPoint; });
    warp_.each([&](int held, int lane) {
      if (lane == of && least < INFINITY) see(lanes[held], least, target);
    });
  }

  RUBRISCOPE_WARP void find_bound() {
    bound_ = warp_.template greatest<Real>([&](int held, int) { return lanes[held].bound; });
  }

  const Warp& warp_;
  const WideTree<Real>& queries_;
  const WideTree<Real>& tree_;
  const Rounding<Real> error_;
  Real bound_;
};

/// The nearest target of every query of a packet, by the query's index: squared[query] (scaled), near[query]
/// (or null). The targets hold at least one point.
template <class Warp, class Real>
RUBRISCOPE_WARP void wide_each(const Warp& warp, const WideStack<Real>& stack, const WideTree<Real>& queries,
                               const WideTree<Real>& targets, std::int64_t packet, double* squared,
                               std::int64_t* near) {
  WidePacket<Real, Warp, true> first(warp, queries, targets, packet, 0);
  walk(warp, targets, stack, first);
  const Rounding<Real> error = rounding<Real>(targets.dimensions);
  const std::uint32_t open = warp.ballot([&](int held, int) {
    const auto& mine = first.lanes[held];
    return mine.index != kNoPoint && !(loosen(mine.nearest.best, error) < mine.nearest.second);
  });
  warp.each([&](int held, int lane) {
    const auto& mine = first.lanes[held];
    if (mine.index == kNoPoint || (open >> lane & 1) != 0) return;
    const std::int32_t target = targets.index[mine.nearest.where];
    if (near != nullptr) near[mine.index] = target;
    squared[mine.index] =
        squared_distance(queries.points + mine.index * targets.dimensions,
                         targets.points + target * targets.dimensions, targets.dimensions, targets.scale);
  });
  if (open == 0) return;
  WideExact<Real, Warp> second(warp, queries, targets, first, open);
  walk(warp, targets, stack, second);
  warp.each([&](int held, int lane) {
    const auto& mine = second.lanes[held];
    if ((open >> lane & 1) == 0) return;
    if (near != nullptr) near[mine.query] = mine.nearest;
    squared[mine.query] = mine.best;
  });
}

/// The largest nearest distance among a packet's queries, the lowest query where equal; without a pair (-1)
/// where all have a neighbour strictly nearer than the square root of `known`. The targets hold at least one
/// point.
template <class Warp, class Real>
RUBRISCOPE_WARP PointPair wide_largest(const Warp& warp, const WideStack<Real>& stack,
                                       const WideTree<Real>& queries, const WideTree<Real>& targets,
                                       std::int64_t packet, double known) {
  const Rounding<Real> error = rounding<Real>(targets.dimensions);
  WidePacket<Real, Warp, false> first(warp, queries, targets, packet, tighten(known, error));
  walk(warp, targets, stack, first);
  // Of the packet's own, those that are certainly below another need not be told apart either.
  const Real best = warp.template greatest<Real>([&](int held, int) {
    return first.lanes[held].index == kNoPoint ? Real(-1) : first.lanes[held].nearest.best;
  });
  PointPair out;
  if (best < 0) return out;
  const Real floor = best - best * error.relative - error.absolute;
  const std::uint32_t left = warp.ballot([&](int held, int) {
    const auto& mine = first.lanes[held];
    return mine.index != kNoPoint && !(loosen(mine.nearest.best, error) < floor);
  });
  WideExact<Real, Warp> second(warp, queries, targets, first, left);
  walk(warp, targets, stack, second);
  const auto squared_of = [&](int held, int lane) {
    return (left >> lane & 1) != 0 ? second.lanes[held].best : -1.0;
  };
  out.squared = warp.template greatest<double>(squared_of);
  const auto query = warp.template least<std::int32_t>([&](int held, int lane) {
    return squared_of(held, lane) == out.squared ? second.lanes[held].query : kNoPoint;
  });
  out.query = query;
  const std::uint32_t whose = warp.ballot(
      [&](int held, int lane) { return (left >> lane & 1) != 0 && second.lanes[held].query == query; });
  out.target = warp.template broadcast<std::int32_t>(
      warp.lowest(whose), [&](int held, int) { return second.lanes[held].nearest; });
  return out;
}

}  // namespace rubriscope::ops
