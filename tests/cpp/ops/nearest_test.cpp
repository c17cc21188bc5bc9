// What a CUDA thread does with the targets of a tile, against seeing them one by one.
#include "rubriscope/ops/hausdorff/nearest.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <iterator>
#include <limits>
#include <random>
#include <vector>

namespace rubriscope::ops {
namespace {

constexpr int tile_size = 64;

template <class Real>
Nearest<Real> nothing_seen() {
  const Real infinity = std::numeric_limits<Real>::infinity();
  return {infinity, infinity, 0};
}

/// Shows the points tile by tile, filled as cuda/hausdorff_pairs.cu fills its shared memory, to the query and
/// to another one beside it.
template <class Real>
Nearest<Real> in_tiles(const Real (&q)[3], const std::vector<Real>& points, int dimensions) {
  Nearest<Real> nearest[2] = {nothing_seen<Real>(), nothing_seen<Real>()};
  const Real both[2][3] = {{q[0] + 1, q[2], q[1]}, {q[0], q[1], q[2]}};
  const auto targets = static_cast<std::int64_t>(points.size()) / dimensions;
  Real tile[3][tile_size];
  for (std::int64_t from = 0; from < targets; from += tile_size) {
    // What an earlier tile left behind must not count.
    for (auto& row : tile) std::fill(std::begin(row), std::end(row), q[0]);
    const int count = static_cast<int>(std::min<std::int64_t>(targets - from, tile_size));
    const int filled = (count + kNearestGroup - 1) / kNearestGroup * kNearestGroup;
    for (int t = 0; t < filled; ++t) {
      for (int k = 0; k < 3; ++k) {
        const bool there = t < count && k < dimensions;
        tile[k][t] = there ? points[static_cast<std::size_t>((from + t) * dimensions + k)] : Real(0);
      }
      if (t >= count) tile[0][t] = std::numeric_limits<Real>::infinity();
    }
    see_tile(nearest, both, tile, count, from);
  }
  return nearest[1];
}

template <class Real>
Nearest<Real> one_by_one(const Real (&q)[3], const std::vector<Real>& points, int dimensions) {
  Real best = std::numeric_limits<Real>::infinity(), second = best;
  std::int64_t where = 0;
  for (std::size_t j = 0; j < points.size() / static_cast<std::size_t>(dimensions); ++j) {
    Real squared = 0;
    for (int k = 0; k < dimensions; ++k) {
      const Real difference =
          q[k] - points[j * static_cast<std::size_t>(dimensions) + static_cast<std::size_t>(k)];
      squared += difference * difference;
    }
    if (squared < best) {
      second = best;
      best = squared;
      where = static_cast<std::int64_t>(j);
    } else {
      second = std::min(second, squared);
    }
  }
  return {best, second, where};
}

template <class Real>
class NearestInTiles : public ::testing::Test {};
using Reals = ::testing::Types<float, double>;
TYPED_TEST_SUITE(NearestInTiles, Reals);

// Coordinates on a small lattice: every square is exact, and equal distances are common.
TYPED_TEST(NearestInTiles, IsWhatOneByOneFinds) {
  std::mt19937_64 random(5);
  std::uniform_int_distribution<int> coordinate(-6, 6);
  for (int dimensions = 1; dimensions <= 3; ++dimensions) {
    for (int targets = 1; targets <= 2 * tile_size + 5; ++targets) {
      std::vector<TypeParam> points(static_cast<std::size_t>(targets * dimensions));
      for (TypeParam& p : points) p = static_cast<TypeParam>(coordinate(random));
      TypeParam q[3] = {0, 0, 0};
      for (int k = 0; k < dimensions; ++k) q[k] = static_cast<TypeParam>(coordinate(random));
      const auto found = in_tiles(q, points, dimensions), expected = one_by_one(q, points, dimensions);
      EXPECT_EQ(found.best, expected.best) << targets << " targets, " << dimensions << "-D";
      EXPECT_EQ(found.second, expected.second) << targets << " targets, " << dimensions << "-D";
      EXPECT_EQ(found.where, expected.where) << targets << " targets, " << dimensions << "-D";
    }
  }
}

// Infinite targets are never taken in: the search then says that all are infinitely far.
TYPED_TEST(NearestInTiles, SeesNothingInfinite) {
  const TypeParam infinity = std::numeric_limits<TypeParam>::infinity();
  const TypeParam q[3] = {1, 2, 3};
  std::vector<TypeParam> points(7 * 3, infinity);
  EXPECT_EQ(in_tiles(q, points, 3).best, infinity);
  points[5 * 3] = points[5 * 3 + 1] = points[5 * 3 + 2] = 0;
  const auto found = in_tiles(q, points, 3);
  EXPECT_EQ(found.best, 14);
  EXPECT_EQ(found.second, infinity);
  EXPECT_EQ(found.where, 5);
}

}  // namespace
}  // namespace rubriscope::ops
