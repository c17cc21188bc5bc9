// A query's two smallest squared distances while targets pass, on the CPU and in the .cu files.
#pragma once

#include <cmath>
#include <cstdint>

#include "rubriscope/ops/host_device.h"

namespace rubriscope::ops {

/// How many targets see_group takes at once.
constexpr int kNearestGroup = 4;

/// The smallest squared distance seen, whose it is, and the one that comes next. `second` tells whether
/// rounding could make another target the nearest. Nothing infinite is taken in.
template <class Real>
struct Nearest {
  Real best, second;
  std::int64_t where;

  RUBRISCOPE_HD void see(Real squared, std::int64_t target) {
    if (squared < best) {
      second = best;
      best = squared;
      where = target;
    } else if (squared < second) {
      second = squared;
    }
  }

  /// As see for kNearestGroup targets from `target` on, in their order: one comparison where none of them
  /// counts, which is nearly always.
  RUBRISCOPE_HD void see_group(const Real (&squared)[kNearestGroup], std::int64_t target) {
    const Real least = std::fmin(std::fmin(squared[0], squared[1]), std::fmin(squared[2], squared[3]));
    if (!(least < second)) return;
    for (int t = 0; t < kNearestGroup; ++t) see(squared[t], target + t);
  }
};

/// The squared distance from q to target t of a tile whose coordinates lie in rows.
template <class Real, int Tile>
RUBRISCOPE_HD Real squared_in_tile(const Real (&q)[3], const Real (&tile)[3][Tile], int t) {
  const Real dx = q[0] - tile[0][t], dy = q[1] - tile[1][t], dz = q[2] - tile[2][t];
  return dx * dx + dy * dy + dz * dz;
}

/// Shows targets 0 … count - 1 of a tile, numbered from `from` on, to several queries: what is read of the
/// tile serves them all. The tile is filled to a whole group, in its first coordinate with infinity.
template <int Queries, class Real, int Tile>
RUBRISCOPE_HD void see_tile(Nearest<Real> (&nearest)[Queries], const Real (&q)[Queries][3],
                            const Real (&tile)[3][Tile], int count, std::int64_t from) {
  static_assert(Tile % kNearestGroup == 0, "a tile holds whole groups");
#ifdef __CUDA_ARCH__
#pragma unroll 4
#endif
  for (int t = 0; t < count; t += kNearestGroup) {
    for (int i = 0; i < Queries; ++i) {
      const Real squared[kNearestGroup] = {squared_in_tile(q[i], tile, t), squared_in_tile(q[i], tile, t + 1),
                                           squared_in_tile(q[i], tile, t + 2),
                                           squared_in_tile(q[i], tile, t + 3)};
      nearest[i].see_group(squared, from + t);
    }
  }
}

}  // namespace rubriscope::ops
