#include "rubriscope/ops/hausdorff/grid_search.h"

#include <initializer_list>

#include "rubriscope/ops/hausdorff/shared_maximum.h"
#include "rubriscope/ops/hausdorff/vector.h"

namespace rubriscope::ops {
namespace RUBRISCOPE_ISA {

namespace {

template <class Real>
constexpr Real kInfinite = __builtin_inf();

/// The eight rows of cells around a query's own, the near ones first: steps in y and z.
constexpr int kAround[8][2] = {{-1, 0}, {1, 0}, {0, -1}, {0, 1}, {-1, -1}, {-1, 1}, {1, -1}, {1, 1}};

/// One query on its way through the grid. Loads run past the end of a row of cells: what they find there are
/// targets like any other. With `Each` the lanes remember the least squared distance, where it was found and
/// the least but one.
template <class Real, bool Each>
struct Query {
  const GridView<Real>& view;
  Real q[3];
  Real floor;
  Real sure = kInfinite<Real>;  ///< squared distance of which nothing beyond the neighbouring cells is
  Vector<Real> best, second;
  Ints<Real> where;

  explicit Query(const GridView<Real>& view) : view(view) {
    const GridGeometry<Real>& g = view.geometry;
    for (int k = 0; k < 3; ++k) {
      const Real side = g.cells[k] == 1 ? kInfinite<Real> : g.side[k] - g.margin;
      sure = side * side < sure ? side * side : sure;
    }
  }

  void begin(std::int64_t at, Real new_floor) {
    for (int k = 0; k < 3; ++k) q[k] = view.queries.coordinate[k][at];
    floor = new_floor;
    best = second = spread(kInfinite<Real>);
    where = Ints<Real>{};
  }

  /// The squared distance in float64 to the target at a place of the order.
  double squared(std::int64_t at, std::int64_t target) const {
    if (view.scale == 1) {  // the coordinates here are those given
      const Real to[3] = {view.targets.coordinate[0][target], view.targets.coordinate[1][target],
                          view.targets.coordinate[2][target]};
      return squared_distance(q, to, 3, 1.0);
    }
    return squared_distance(view.queries.points + view.queries.index[at] * view.dimensions,
                            view.targets.points + view.targets.index[target] * view.dimensions,
                            view.dimensions, view.scale);
  }

  /// The targets from..to, in the order of the cells; true if the search is over.
  bool scan(std::int64_t from, std::int64_t to) {
    const GridSet<Real>& targets = view.targets;
    for (std::int64_t at = from; at < to; at += kWidth) {
      const Vector<Real> dx = load_anywhere(targets.coordinate[0] + at) - q[0];
      const Vector<Real> dy = load_anywhere(targets.coordinate[1] + at) - q[1];
      const Vector<Real> dz = load_anywhere(targets.coordinate[2] + at) - q[2];
      const Vector<Real> d = dx * dx + dy * dy + dz * dz;
      if constexpr (Each) {
        second = minimum(second, maximum(d, best));
        where = d < best ? spread_number<Real>(at) : where;
      } else {
        if (less(d, spread(floor)) != 0) return true;
      }
      best = minimum(d, best);
    }
    return false;
  }

  /// Cells x0..x1 of the row (y, z), as far as there are any.
  bool scan_cells(std::int64_t x0, std::int64_t x1, std::int64_t y, std::int64_t z) {
    const std::int64_t* const cells = view.geometry.cells;
    if (y < 0 || y >= cells[1] || z < 0 || z >= cells[2]) return false;
    x0 = x0 > 0 ? x0 : 0;
    x1 = x1 < cells[0] ? x1 : cells[0] - 1;
    if (x0 > x1) return false;
    const std::int64_t row = (z * cells[1] + y) * cells[0];
    return scan(view.targets.start[row + x0], view.targets.start[row + x1 + 1]);
  }

  /// A lower bound of the distance along dimension k to anything `steps` cells away from cell c, on the side
  /// of the steps' sign; infinite beyond the grid.
  Real gap(int k, std::int64_t c, std::int64_t steps) const {
    const GridGeometry<Real>& g = view.geometry;
    if (steps == 0) return 0;
    if (c + steps < 0 || c + steps >= g.cells[k]) return kInfinite<Real>;
    const Real border = g.low[k] + g.side[k] * static_cast<Real>(steps < 0 ? c + steps + 1 : c + steps);
    const Real distance = (steps < 0 ? q[k] - border : border - q[k]) - g.margin;
    return distance > 0 ? distance : 0;
  }

  /// All targets that may be nearer than the best, outwards from the query's cell, whose row is done;
  /// true if the search is over before that.
  bool outwards(const std::int64_t* c) {
    const Rounding<Real> error = rounding<Real>(3);
    const Real y[2] = {gap(1, c[1], -1), gap(1, c[1], 1)}, z[2] = {gap(2, c[2], -1), gap(2, c[2], 1)};
    const Real square[4] = {y[0] * y[0], y[1] * y[1], z[0] * z[0], z[1] * z[1]};
    const Real far = kInfinite<Real>;
    const Vector<Real> gaps{square[0],
                            square[1],
                            square[2],
                            square[3],
                            square[0] + square[2],
                            square[0] + square[3],
                            square[1] + square[2],
                            square[1] + square[3],
                            far,
                            far,
                            far,
                            far,
                            far,
                            far,
                            far,
                            far};
    Real limit = loosen(lowest(best), error);
    for (const std::uint32_t rows : {0x0fu, 0xf0u}) {  // with a common face, with a common edge
      const std::uint32_t wanted = rows & less(gaps, spread(limit));
      for (std::uint32_t left = wanted; left != 0; left &= left - 1) {
        const auto& step = kAround[__builtin_ctz(left)];
        if (scan_cells(c[0] - 1, c[0] + 1, c[1] + step[0], c[2] + step[1])) return true;
      }
      if (wanted != 0) limit = loosen(lowest(best), error);
    }
    if (limit < sure) return false;
    for (std::int64_t r = 2;; ++r) {
      Real near = kInfinite<Real>;
      for (int k = 0; k < 3; ++k) {
        const Real low = gap(k, c[k], -r), high = gap(k, c[k], r);
        near = low < near ? low : near;
        near = high < near ? high : near;
      }
      // Infinite where the whole grid has been searched.
      if (!(near * near <= limit) || near == kInfinite<Real>) return false;
      for (std::int64_t z = -r; z <= r; ++z) {
        for (std::int64_t y = -r; y <= r; ++y) {
          const bool face = y == -r || y == r || z == -r || z == r;
          if (face) {
            if (scan_cells(c[0] - r, c[0] + r, c[1] + y, c[2] + z)) return true;
          } else {
            if (scan_cells(c[0] - r, c[0] - r, c[1] + y, c[2] + z)) return true;
            if (scan_cells(c[0] + r, c[0] + r, c[1] + y, c[2] + z)) return true;
          }
        }
      }
      limit = loosen(lowest(best), error);
    }
  }

  /// The nearest target in float64, the lowest index where equal, given that its distance in Real is at most
  /// `bound`.
  PointPair exact(std::int64_t at, Real bound) const {
    const GridGeometry<Real>& g = view.geometry;
    const Rounding<Real> error = rounding<Real>(3);
    const Real reach =
        static_cast<Real>(__builtin_sqrt(static_cast<double>(bound))) * (1 + error.relative) + g.margin;
    std::int64_t from[3], to[3];
    for (int k = 0; k < 3; ++k) {
      from[k] = cell(k, q[k] - reach);
      to[k] = cell(k, q[k] + reach);
    }
    PointPair pair{__builtin_inf(), view.queries.index[at], -1};
    for (std::int64_t z = from[2]; z <= to[2]; ++z) {
      for (std::int64_t y = from[1]; y <= to[1]; ++y) {
        const std::int64_t row = (z * g.cells[1] + y) * g.cells[0];
        const std::int64_t end = view.targets.start[row + to[0] + 1];
        for (std::int64_t p = view.targets.start[row + from[0]]; p < end; p += kWidth) {
          const Vector<Real> dx = load_anywhere(view.targets.coordinate[0] + p) - q[0];
          const Vector<Real> dy = load_anywhere(view.targets.coordinate[1] + p) - q[1];
          const Vector<Real> dz = load_anywhere(view.targets.coordinate[2] + p) - q[2];
          std::uint32_t bits = 0xffffu & ~less(spread(bound), dx * dx + dy * dy + dz * dz);
          for (; bits != 0; bits &= bits - 1) {
            const std::int64_t candidate = p + __builtin_ctz(bits);
            if (candidate >= view.target_count) break;
            const std::int64_t target = view.targets.index[candidate];
            const double squared = this->squared(at, candidate);
            if (squared < pair.squared || (squared == pair.squared && target < pair.target)) {
              pair.squared = squared;
              pair.target = target;
              const Real limit = loosen(static_cast<Real>(squared), error);
              bound = limit < bound ? limit : bound;
            }
          }
        }
      }
    }
    return pair;
  }

  std::int64_t cell(int k, Real at) const {
    const GridGeometry<Real>& g = view.geometry;
    const Real c = (at - g.low[k]) * g.per_unit[k];
    const Real last = static_cast<Real>(g.cells[k] - 1);
    return static_cast<std::int64_t>(c > 0 ? (c < last ? c : last) : 0);
  }
};

template <class Real>
inline void split(const GridGeometry<Real>& geometry, std::int64_t number, std::int64_t* cell) {
  cell[0] = number % geometry.cells[0];
  cell[1] = number / geometry.cells[0] % geometry.cells[1];
  cell[2] = number / geometry.cells[0] / geometry.cells[1];
}

template <class Real>
void largest(const GridView<Real>& view, std::int64_t begin, std::int64_t end, std::int64_t step,
             std::uint64_t* shared, PointPair* best) {
  const Rounding<Real> error = rounding<Real>(3);
  Query<Real, false> query(view);
  for (std::int64_t c = begin; c < end; c += step) {
    const std::int64_t last = view.queries.start[c + 1];
    const Real floor = tighten(read_maximum(shared), error);
    for (std::int64_t at = view.queries.start[c]; at < last; ++at) {
      query.begin(at, floor);
      // The row of three cells; beyond the grid's border it goes on in the next row, which does no harm.
      if (query.scan(view.targets.start[c - 1], view.targets.start[c + 2])) continue;
      std::int64_t cell[3];
      split(view.geometry, c, cell);
      if (query.outwards(cell)) continue;
      const Real bound = loosen(lowest(query.best), error);
      if (static_cast<double>(bound) < best->squared) continue;
      const PointPair pair = query.exact(at, bound);
      if (larger(pair, *best)) {
        *best = pair;
        raise_maximum(shared, pair.squared);
      }
    }
  }
}

template <class Real>
void each(const GridView<Real>& view, std::int64_t begin, std::int64_t end, double* squared,
          std::int64_t* nearest) {
  const Rounding<Real> error = rounding<Real>(3);
  Query<Real, true> query(view);
  for (std::int64_t c = begin; c < end; ++c) {
    const std::int64_t last = view.queries.start[c + 1];
    if (view.queries.start[c] == last) continue;
    std::int64_t cell[3];
    split(view.geometry, c, cell);
    for (std::int64_t at = view.queries.start[c]; at < last; ++at) {
      query.begin(at, 0);
      query.scan_cells(cell[0] - 1, cell[0] + 1, cell[1], cell[2]);
      query.outwards(cell);
      const Real bound = loosen(lowest(query.best), error);
      const std::uint32_t near = 0xffffu & ~less(spread(bound), query.best);
      const std::uint32_t more = 0xffffu & ~less(spread(bound), query.second);
      PointPair pair;
      if ((near & (near - 1)) == 0 && more == 0) {
        const int lane = __builtin_ctz(near);
        pair.query = view.queries.index[at];
        const std::int64_t found = query.where[lane] + lane;
        pair.target = view.targets.index[found];
        pair.squared = query.squared(at, found);
      } else {
        pair = query.exact(at, bound);
      }
      squared[pair.query] = pair.squared;
      nearest[pair.query] = pair.target;
    }
  }
}

template <class Real, int Dimensions>
void cells_of(const GridGeometry<Real>& geometry, const Real* points, std::int64_t count, Real scale,
              std::int32_t* cells) {
  Real low[Dimensions], per_unit[Dimensions], last[Dimensions];
  std::int32_t stride[Dimensions];
  std::int32_t next = 1;
  for (int k = 0; k < Dimensions; ++k) {
    low[k] = geometry.low[k];
    per_unit[k] = geometry.per_unit[k];
    last[k] = static_cast<Real>(geometry.cells[k] - 1);
    stride[k] = next;
    next *= static_cast<std::int32_t>(geometry.cells[k]);
  }
  for (std::int64_t i = 0; i < count; ++i) {
    std::int32_t cell = 0;
    for (int k = 0; k < Dimensions; ++k) {
      Real c = (points[i * Dimensions + k] * scale - low[k]) * per_unit[k];
      c = c > 0 ? c : 0;
      c = c < last[k] ? c : last[k];
      cell += static_cast<std::int32_t>(c) * stride[k];
    }
    cells[i] = cell;
  }
}

}  // namespace

#define RUBRISCOPE_DEFINE_GRID(Real)                                                                     \
  void grid_largest(const GridView<Real>& view, std::int64_t begin, std::int64_t end, std::int64_t step, \
                    std::uint64_t* shared, PointPair* best) {                                            \
    largest(view, begin, end, step, shared, best);                                                       \
  }                                                                                                      \
  void grid_each(const GridView<Real>& view, std::int64_t begin, std::int64_t end, double* squared,      \
                 std::int64_t* nearest) {                                                                \
    each(view, begin, end, squared, nearest);                                                            \
  }                                                                                                      \
  void grid_cells(const GridGeometry<Real>& geometry, const Real* points, std::int64_t count,            \
                  std::int64_t dimensions, double scale, std::int32_t* cells) {                          \
    const auto find = dimensions == 1   ? cells_of<Real, 1>                                              \
                      : dimensions == 2 ? cells_of<Real, 2>                                              \
                                        : cells_of<Real, 3>;                                             \
    find(geometry, points, count, static_cast<Real>(scale), cells);                                      \
  }
RUBRISCOPE_DEFINE_GRID(float)
RUBRISCOPE_DEFINE_GRID(double)

}  // namespace RUBRISCOPE_ISA
}  // namespace rubriscope::ops
