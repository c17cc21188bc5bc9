// The passes over all points that building a tree takes.
#include "rubriscope/ops/hausdorff/search.h"
#include "rubriscope/ops/hausdorff/vector.h"

namespace rubriscope::ops {
namespace RUBRISCOPE_ISA {

namespace {

template <class Real>
Extent find_extent(const Real* points, std::int64_t count, std::int64_t dimensions) {
  // Sixteen points are `dimensions` whole vectors, in which each lane always belongs to one coordinate.
  const Real infinity = __builtin_inf();
  Vector<Real> low[3], high[3];
  for (int v = 0; v < 3; ++v) {
    low[v] = spread(infinity);
    high[v] = spread(-infinity);
  }
  Ints<Real> nan{};
  const std::int64_t blocks = count / kWidth;
  const Real* from = points;
  const auto take = [&](int v, Vector<Real> value) {
    low[v] = minimum(value, low[v]);
    high[v] = maximum(value, high[v]);
    nan |= value != value;
  };
  if (dimensions == 3) {
    for (std::int64_t b = 0; b < blocks; ++b, from += 3 * kWidth) {
      take(0, load_anywhere(from));
      take(1, load_anywhere(from + kWidth));
      take(2, load_anywhere(from + 2 * kWidth));
    }
  } else {
    for (std::int64_t b = 0; b < blocks; ++b, from += dimensions * kWidth) {
      for (int v = 0; v < dimensions; ++v) take(v, load_anywhere(from + v * kWidth));
    }
  }
  Extent found{{0, 0, 0}, {0, 0, 0}, false};
  for (int k = 0; k < dimensions; ++k) {
    Real least = infinity, most = -infinity;
    for (int at = k; at < dimensions * kWidth; at += static_cast<int>(dimensions)) {
      const Real a = low[at / kWidth][at % kWidth], b = high[at / kWidth][at % kWidth];
      least = a < least ? a : least;
      most = b > most ? b : most;
    }
    for (std::int64_t i = blocks * kWidth; i < count; ++i) {
      const Real value = points[i * dimensions + k];
      least = value < least ? value : least;
      most = value > most ? value : most;
      found.nan |= value != value;
    }
    found.low[k] = static_cast<double>(least);
    found.high[k] = static_cast<double>(most);
  }
  for (int l = 0; l < kWidth; ++l) found.nan |= nan[l] != 0;
  return found;
}

/// Bits 0, 1, 2, … to places 0, 3, 6, …
inline std::uint32_t third(std::uint32_t v) {
#if defined(__BMI2__)
  return _pdep_u32(v, 0x09249249);
#else
  v = (v | v << 16) & 0x030000ff;
  v = (v | v << 8) & 0x0300f00f;
  v = (v | v << 4) & 0x030c30c3;
  return (v | v << 2) & 0x09249249;
#endif
}

template <class Real, int Dimensions>
void keys(const Real* points, Real scale, const double* low, Real per_unit, int bits, std::int64_t count,
          std::uint64_t* entries) {
  Real from[3] = {0, 0, 0};
  for (int k = 0; k < Dimensions; ++k) from[k] = static_cast<Real>(low[k]);
  const Real top = static_cast<Real>((1 << bits) - 1);
  for (std::int64_t e = 0; e < count; ++e) {
    const std::int64_t i = static_cast<std::uint32_t>(entries[e]);
    std::uint32_t key = 0;
    for (int k = 0; k < Dimensions; ++k) {
      Real at = (points[i * Dimensions + k] * scale - from[k]) * per_unit;
      at = at > 0 ? at : 0;
      at = at < top ? at : top;
      key |= third(static_cast<std::uint32_t>(static_cast<std::int32_t>(at))) << k;
    }
    entries[e] = static_cast<std::uint64_t>(key) << 32 | static_cast<std::uint32_t>(i);
  }
}

/// The box of sixteen lows and sixteen highs a coordinate, into lane `to` of its node.
template <class Real>
inline void box(const Real* lows, const Real* highs, std::int64_t to, Real* nodes) {
  Real* const node = nodes + to / kWidth * kNodeReals + to % kWidth;
  for (int k = 0; k < 3; ++k) {
    node[k * kWidth] = lowest(load(lows + k * kWidth));
    node[(k + 3) * kWidth] = highest(load(highs + k * kWidth));
  }
}

/// What no box is: at infinity, for what is left of the last node.
template <class Real>
void fill(std::int64_t count, Real* nodes) {
  for (std::int64_t l = count; l % kWidth != 0; ++l) {
    Real* const node = nodes + l / kWidth * kNodeReals + l % kWidth;
    for (int v = 0; v < 6; ++v) node[v * kWidth] = static_cast<Real>(__builtin_inf());
  }
}

/// A node's highs where boxes at infinity do not count.
template <class Real>
inline void box_of_node(const Real* child, std::int64_t to, Real* nodes) {
  Real highs[3 * kWidth] __attribute__((aligned(64)));
  for (int at = 0; at < 3 * kWidth; ++at) {
    const Real high = child[3 * kWidth + at];
    highs[at] = high < static_cast<Real>(__builtin_inf()) ? high : -high;
  }
  box(child, highs, to, nodes);
}

}  // namespace

#define RUBRISCOPE_DEFINE_BUILD(Real)                                                                        \
  Extent extent(const Real* points, std::int64_t count, std::int64_t dimensions) {                           \
    return find_extent(points, count, dimensions);                                                           \
  }                                                                                                          \
  void morton(const Real* points, std::int64_t dimensions, double scale, const double* low, double per_unit, \
              int bits, std::int64_t count, std::uint64_t* entries) {                                        \
    const auto make = dimensions == 1 ? keys<Real, 1> : dimensions == 2 ? keys<Real, 2> : keys<Real, 3>;     \
    make(points, static_cast<Real>(scale), low, static_cast<Real>(per_unit), bits, count, entries);          \
  }                                                                                                          \
  void box_leaves(const Real* leaves, std::int64_t count, Real* nodes) {                                     \
    for (std::int64_t l = 0; l < count; ++l)                                                                 \
      box(leaves + l * kLeafReals, leaves + l * kLeafReals, l, nodes);                                       \
    fill(count, nodes);                                                                                      \
  }                                                                                                          \
  void box_nodes(const Real* children, std::int64_t count, Real* nodes) {                                    \
    for (std::int64_t l = 0; l < count; ++l) box_of_node(children + l * kNodeReals, l, nodes);               \
    fill(count, nodes);                                                                                      \
  }
RUBRISCOPE_DEFINE_BUILD(float)
RUBRISCOPE_DEFINE_BUILD(double)

}  // namespace RUBRISCOPE_ISA
}  // namespace rubriscope::ops
