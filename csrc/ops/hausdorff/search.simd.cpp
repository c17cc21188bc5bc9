#include "rubriscope/ops/hausdorff/search.h"

#include "rubriscope/ops/hausdorff/shared_maximum.h"
#include "rubriscope/ops/hausdorff/vector.h"

namespace rubriscope::ops {
namespace RUBRISCOPE_ISA {

namespace {

constexpr int kFew = 3;  ///< so few queries of a packet are put to a leaf one by one

/// Per lane, the squared distance of one point or box of queries to sixteen boxes; also of `centre` to
/// theirs.
template <class Real>
struct ToBoxes {
  Vector<Real> squared;
  Vector<Real> order;
};

/// low and high bound the queries; for a single query they are equal.
template <class Real>
inline ToBoxes<Real> to_boxes(const Real* node, const Real* low, const Real* high) {
  ToBoxes<Real> out{Vector<Real>{}, Vector<Real>{}};
  for (int k = 0; k < 3; ++k) {
    const Vector<Real> from = load(node + k * kWidth), to = load(node + (k + 3) * kWidth);
    const Vector<Real> gap = maximum(maximum(from - high[k], low[k] - to), Vector<Real>{});
    const Vector<Real> off = (from + to) - (low[k] + high[k]);
    out.squared += gap * gap;
    out.order += off * off;
  }
  return out;
}

/// The squared distances of one query to the points of a leaf.
template <class Real>
inline Vector<Real> to_leaf(const Real* leaf, Real x, Real y, Real z) {
  const Vector<Real> dx = load(leaf) - x, dy = load(leaf + kWidth) - y, dz = load(leaf + 2 * kWidth) - z;
  return dx * dx + dy * dy + dz * dz;
}

/// One query's nearest target in float64, the lowest index where equal, among those whose distance in Real is
/// at most a bound that the true one meets.
template <class Real>
struct Exact {
  const TreeView<Real>& tree;
  const Rounding<Real> error;
  const Real* point;  ///< as given
  Real q[3];          ///< as in the tree
  Real bound;
  double best = __builtin_inf();
  std::int64_t nearest = -1;

  /// Whether box c of a node can hold neither a nearer point nor an equally near one of a lower index.
  /// Rounding is monotone, so the box's distance, computed as a point's is, is not above that of any point in
  /// it.
  bool settled(const Real* node, int c, std::int32_t first) const {
    if (nearest < 0 || first < nearest || tree.scale != 1) return false;
    double sum = 0;
    for (int k = 0; k < tree.dimensions; ++k) {
      const double low = static_cast<double>(node[k * kWidth + c]) - static_cast<double>(q[k]);
      const double high = static_cast<double>(q[k]) - static_cast<double>(node[(k + 3) * kWidth + c]);
      const double gap = low > 0 ? low : high > 0 ? high : 0;
      sum += gap * gap;
    }
    return sum >= best;
  }

  void leaf(std::int64_t l) {
    const Vector<Real> d = to_leaf(tree.coordinates + l * kLeafReals, q[0], q[1], q[2]);
    std::uint32_t bits = 0xffffu & ~less(spread(bound), d);
    for (; bits != 0; bits &= bits - 1) {
      const std::int64_t j = tree.index[l * kWidth + __builtin_ctz(bits)];
      const double squared =
          squared_distance(point, tree.points + j * tree.dimensions, tree.dimensions, tree.scale);
      if (squared < best || (squared == best && j < nearest)) {
        best = squared;
        nearest = j;
        const Real limit = loosen(static_cast<Real>(squared), error);
        bound = limit < bound ? limit : bound;
      }
    }
  }

  void node(int level, std::int64_t b) {
    const Real* const boxes = tree.boxes[level] + b * kNodeReals;
    const ToBoxes<Real> to = to_boxes(boxes, q, q);
    std::uint32_t bits = 0xffffu & ~less(spread(bound), to.squared);
    while (bits != 0) {
      const int c = lowest_lane(to.squared, bits);
      bits &= ~(1u << c);
      if (!(to.squared[c] <= bound)) return;
      const std::int64_t child = b * kWidth + c;
      if (child >= (level == 0 ? tree.leaves : (tree.leaves + (1ll << (4 * level)) - 1) >> (4 * level)))
        continue;
      if (settled(boxes, c, tree.first[level][child])) continue;
      if (level == 0) {
        leaf(child);
      } else {
        node(level - 1, child);
      }
    }
  }
};

/// Sixteen queries on their way through the targets. `Each`: all want their nearest neighbour; otherwise a
/// query is done once it has a neighbour nearer than `floor`.
template <class Real, bool Each>
struct Packet {
  const TreeView<Real>& tree;
  const Rounding<Real> error;
  Real floor;
  Vector<Real> x, y, z;
  Real low[3], high[3];
  std::uint32_t active;
  Real bound = __builtin_inf();
  Vector<Real> best, second;  ///< least squared distance in the leaf `where`, and in any other leaf
  Ints<Real> where;

  Packet(const TreeView<Real>& queries, const TreeView<Real>& targets, std::int64_t packet, Real floor)
      : tree(targets),
        error(rounding<Real>(3)),
        floor(floor),
        best(spread(bound)),
        second(best),
        where(Ints<Real>{} - 1) {
    const Real* const from = queries.coordinates + packet * kLeafReals;
    x = load(from);
    y = load(from + kWidth);
    z = load(from + 2 * kWidth);
    const Real* const box = queries.boxes[0] + packet / kWidth * kNodeReals + packet % kWidth;
    for (int k = 0; k < 3; ++k) {
      low[k] = box[k * kWidth];
      high[k] = box[(k + 3) * kWidth];
    }
    const std::int64_t left = queries.count - packet * kWidth;
    active = left < kWidth ? (1u << left) - 1 : 0xffffu;
  }

  Vector<Real> loosened() const { return best + best * error.relative + error.absolute; }

  /// A box is of use to a query if its distance is below this. A query that has two leaves to choose from is
  /// decided by Exact, so it needs the least distance only.
  Vector<Real> limit() const {
    if constexpr (Each) {
      const Vector<Real> loose = loosened();
      return second <= loose ? best : loose;
    } else {
      return best;
    }
  }

  void leaf(const Real* box, std::int64_t l) {
    const Vector<Real> zero{};
    const Vector<Real> gx = maximum(maximum(box[0] - x, x - box[3 * kWidth]), zero);
    const Vector<Real> gy = maximum(maximum(box[kWidth] - y, y - box[4 * kWidth]), zero);
    const Vector<Real> gz = maximum(maximum(box[2 * kWidth] - z, z - box[5 * kWidth]), zero);
    const std::uint32_t wanted = active & less(gx * gx + gy * gy + gz * gz, limit());
    if (wanted == 0) return;
    const Real* const p = tree.coordinates + l * kLeafReals;
    Vector<Real> least = spread(static_cast<Real>(__builtin_inf()));
    if (__builtin_popcount(wanted) <= kFew) {
      const Ints<Real> lanes = lane_numbers<Real>();
      for (std::uint32_t left = wanted; left != 0; left &= left - 1) {
        const int q = __builtin_ctz(left);
        const Vector<Real> found = spread(lowest(to_leaf(p, x[q], y[q], z[q])));
        least = lanes == q ? found : least;
      }
    } else {
#pragma GCC unroll 16
      for (int t = 0; t < kWidth; ++t) {
        const Vector<Real> dx = x - p[t], dy = y - p[kWidth + t], dz = z - p[2 * kWidth + t];
        least = minimum(dx * dx + dy * dy + dz * dz, least);
      }
    }
    if constexpr (Each) {
      second = minimum(second, maximum(least, best));
      where = least < best ? spread_number<Real>(l) : where;
    }
    best = minimum(least, best);
    if constexpr (!Each) active &= ~less(best, spread(floor));
    const Vector<Real> none = spread(static_cast<Real>(-1));
    Vector<Real> open = limit();
    if (active != 0xffffu) {
      const Ints<Real> bits = spread_number<Real>(active) >> lane_numbers<Real>();
      open = (bits & 1) != 0 ? open : none;
    }
    bound = highest(open);
  }

  void node(int level, std::int64_t b) {
    const Real* const boxes = tree.boxes[level] + b * kNodeReals;
    const ToBoxes<Real> to = to_boxes(boxes, low, high);
    std::uint32_t bits = less(to.squared, spread(bound));
    while (bits != 0) {
      const int c = lowest_lane(to.order, bits);
      if (level == 0) {
        leaf(boxes + c, b * kWidth + c);
      } else {
        node(level - 1, b * kWidth + c);
      }
      bits &= ~(1u << c) & less(to.squared, spread(bound));
    }
  }
};

template <class Real>
PointPair exact(const TreeView<Real>& queries, const TreeView<Real>& targets, std::int64_t packet, int lane,
                Rounding<Real> error, Real bound) {
  const Real* const from = queries.coordinates + packet * kLeafReals + lane;
  const std::int64_t query = queries.index[packet * kWidth + lane];
  Exact<Real> search{targets,
                     error,
                     queries.points + query * queries.dimensions,
                     {from[0], from[kWidth], from[2 * kWidth]},
                     bound};
  search.node(targets.levels - 1, 0);
  return {search.best, query, search.nearest};
}

template <class Real>
void largest(const TreeView<Real>& queries, const TreeView<Real>& targets, std::int64_t begin,
             std::int64_t end, std::int64_t step, std::uint64_t* shared, PointPair* best) {
  const Rounding<Real> error = rounding<Real>(3);
  for (std::int64_t p = begin; p < end; p += step) {
    const double known = read_maximum(shared);
    Packet<Real, false> packet(queries, targets, p, tighten(known, error));
    packet.node(targets.levels - 1, 0);
    for (std::uint32_t left = packet.active; left != 0; left &= left - 1) {
      const int lane = __builtin_ctz(left);
      const Real bound = loosen(packet.best[lane], error);
      if (bound < static_cast<Real>(best->squared)) continue;
      const PointPair pair = exact(queries, targets, p, lane, error, bound);
      if (larger(pair, *best)) {
        *best = pair;
        raise_maximum(shared, pair.squared);
      }
    }
  }
}

template <class Real>
void each(const TreeView<Real>& queries, const TreeView<Real>& targets, std::int64_t begin, std::int64_t end,
          double* squared, std::int64_t* nearest) {
  const Rounding<Real> error = rounding<Real>(3);
  for (std::int64_t p = begin; p < end; ++p) {
    Packet<Real, true> packet(queries, targets, p, 0);
    packet.node(targets.levels - 1, 0);
    const Vector<Real> loose = packet.loosened();
    const Real* const from = queries.coordinates + p * kLeafReals;
    std::uint32_t ambiguous = packet.active & ~less(loose, packet.second);
    for (std::uint32_t left = packet.active & ~ambiguous; left != 0; left &= left - 1) {
      const int lane = __builtin_ctz(left);
      const std::int64_t leaf = packet.where[lane];
      const Vector<Real> d = to_leaf(targets.coordinates + leaf * kLeafReals, from[lane], from[kWidth + lane],
                                     from[2 * kWidth + lane]);
      const std::uint32_t near = 0xffffu & ~less(spread(loose[lane]), d);
      if ((near & (near - 1)) != 0) {
        ambiguous |= 1u << lane;
        continue;
      }
      const std::int64_t query = queries.index[p * kWidth + lane];
      const std::int64_t target = targets.index[leaf * kWidth + __builtin_ctz(near)];
      nearest[query] = target;
      squared[query] =
          squared_distance(queries.points + query * queries.dimensions,
                           targets.points + target * targets.dimensions, targets.dimensions, targets.scale);
    }
    for (; ambiguous != 0; ambiguous &= ambiguous - 1) {
      const int lane = __builtin_ctz(ambiguous);
      const PointPair pair = exact(queries, targets, p, lane, error, static_cast<Real>(loose[lane]));
      nearest[pair.query] = pair.target;
      squared[pair.query] = pair.squared;
    }
  }
}

}  // namespace

#define RUBRISCOPE_DEFINE_SEARCH(Real)                                                                  \
  void search_largest(const TreeView<Real>& queries, const TreeView<Real>& targets, std::int64_t begin, \
                      std::int64_t end, std::int64_t step, std::uint64_t* shared, PointPair* best) {    \
    largest(queries, targets, begin, end, step, shared, best);                                          \
  }                                                                                                     \
  void search_each(const TreeView<Real>& queries, const TreeView<Real>& targets, std::int64_t begin,    \
                   std::int64_t end, double* squared, std::int64_t* nearest) {                          \
    each(queries, targets, begin, end, squared, nearest);                                               \
  }
RUBRISCOPE_DEFINE_SEARCH(float)
RUBRISCOPE_DEFINE_SEARCH(double)

}  // namespace RUBRISCOPE_ISA
}  // namespace rubriscope::ops
