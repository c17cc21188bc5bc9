// The tree that the CUDA side searches, built and searched on the CPU by the very code, a warp's lanes in
// turn, against every pair in float64.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "rubriscope/ops/hausdorff/point_batch.h"
#include "support/wide_emulation.h"

namespace rubriscope::ops {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

/// By every pair, in the order of the indices.
template <class Real>
PointPair nearest_of_all(const PointBatch<Real>& sets, std::int64_t segment, std::int64_t i) {
  const std::int64_t d = sets.dimensions, other = sets.other(segment);
  PointPair best{infinity, i, 0};
  for (std::int64_t j = 0; j < sets.length(other); ++j) {
    double sum = 0;
    for (std::int64_t k = 0; k < d; ++k) {
      const double difference = static_cast<double>(sets.points(segment)[i * d + k]) -
                                static_cast<double>(sets.points(other)[j * d + k]);
      sum += difference * sets.scale(sets.item(segment)) * (difference * sets.scale(sets.item(segment)));
    }
    if (sum < best.squared) best = {sum, i, j};
  }
  return best;
}

template <class Real>
void check(const Sets<Real>& sets, const std::string& what) {
  Emulation<Real> emulation(sets);
  const PointBatch<Real>& view = emulation.sets();
  for (std::int64_t s = 0; s < view.segments(); ++s) {
    std::vector<double> squared;
    std::vector<std::int64_t> near;
    emulation.each(s, &squared, &near);
    PointPair farthest;
    for (std::int64_t i = 0; i < view.rows(s); ++i) {
      const auto at = static_cast<std::size_t>(i);
      const Real* const point = view.points(s) + i * view.dimensions;
      if (i >= view.length(s) || !view.searches(s) || !view.is_finite(point)) {
        ASSERT_EQ(near[at], -1) << what << ": row " << i << " of segment " << s << " is nobody's query";
        continue;
      }
      const PointPair expected = nearest_of_all(view, s, i);
      ASSERT_EQ(squared[at], expected.squared) << what << ": row " << i << " of segment " << s;
      ASSERT_EQ(near[at], expected.target) << what << ": row " << i << " of segment " << s;
      if (larger(expected, farthest)) farthest = expected;
    }
    for (std::uint64_t seed = 0; seed < 3; ++seed) {
      const PointPair found = emulation.largest(s, seed);
      ASSERT_EQ(found.squared, farthest.squared) << what << ", segment " << s;
      ASSERT_EQ(found.query, farthest.query) << what << ", segment " << s;
      ASSERT_EQ(found.target, farthest.target) << what << ", segment " << s;
    }
  }
}

const std::vector<std::string> shapes = {
    "uniform", "noisy",      "planar",    "line",    "disjoint", "clusters", "outlier", "shells",
    "centre",  "duplicates", "one point", "lattice", "tiny",     "huge",     "far off", "powers"};

/// Two sets of a kind that a search may degrade on or get wrong.
template <class Real>
Sets<Real> make(const std::string& shape, std::int64_t n, std::int64_t m, std::int64_t d,
                std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::uniform_real_distribution<double> uniform(0, 1);
  std::normal_distribution<double> normal(0, 1);
  Sets<Real> out{{}, {}, 1, n, m, d, {}, {}};
  for (std::vector<Real>* set : {&out.x, &out.y}) {
    const std::int64_t count = set == &out.x ? n : m;
    for (std::int64_t i = 0; i < count; ++i) {
      double p[3], length = 0;
      for (double& c : p) c = uniform(random);
      for (double& c : p) length += (c - 0.5) * (c - 0.5);
      for (std::int64_t k = 0; k < d; ++k) {
        double c = p[k];
        const bool second = set == &out.y;
        if (shape == "noisy" && second)
          c = out.x[static_cast<std::size_t>((i % n) * d + k)] + 1e-3 * normal(random);
        if (shape == "planar" && k == 2) c = second ? 0.5 : 0.25;
        if (shape == "line" && k > 0) c = 0;
        if (shape == "disjoint" && second) c += 10;
        if (shape == "clusters") c = 1e-3 * c + std::floor(4 * uniform(random));
        if (shape == "outlier" && !second && i == count / 2) c = 1e7;
        if (shape == "shells") c = (second ? 2 : 1) * (p[k] - 0.5) / std::sqrt(length);
        // Every target equally far from every query.
        if (shape == "centre") c = second ? (k == i % d ? (i % 2 == 0 ? 5.0 : -5.0) : 0.0) : 0.0;
        if (shape == "duplicates") c = std::floor(3 * c) / 4;
        if (shape == "one point") c = second ? 2 : 1;
        if (shape == "lattice") c = std::round(6 * c);
        if (shape == "tiny") c *= sizeof(Real) == 4 ? 1e-33 : 1e-300;
        if (shape == "huge") c *= sizeof(Real) == 4 ? 1e38 : 1e300;
        if (shape == "far off") c = 1e4 + std::floor(64 * c) / 64;
        if (shape == "powers") c = std::ldexp(c < 0.5 ? -1.0 : 1.0, static_cast<int>(-60 * uniform(random)));
        set->push_back(static_cast<Real>(c));
      }
    }
  }
  return out;
}

template <class Real>
class WideTrees : public ::testing::Test {};
using Reals = ::testing::Types<float, double>;
TYPED_TEST_SUITE(WideTrees, Reals);

TYPED_TEST(WideTrees, FindWhatAllPairsTell) {
  for (const std::string& shape : shapes) {
    for (std::int64_t d = 1; d <= 3; ++d) {
      check(make<TypeParam>(shape, 500, 1100, d, 11), shape + ", " + std::to_string(d) + "-D");
    }
  }
}

TYPED_TEST(WideTrees, AreRightAtEverySmallSize) {
  for (std::int64_t n : {1, 2, 31, 32, 33, 63, 64, 65, 1023, 1024, 1025}) {
    for (std::int64_t m : {1, 32, 33, 1025}) {
      const std::string what = std::to_string(n) + " × " + std::to_string(m);
      check(make<TypeParam>("uniform", n, m, 3, 5), "uniform " + what);
      check(make<TypeParam>("lattice", n, m, 2, 6), "lattice " + what);
    }
  }
}

// Lengths of 0 and beyond the rows, garbage behind them, a NaN, infinite points; in one batch.
TYPED_TEST(WideTrees, KeepItemsApart) {
  const TypeParam inf = std::numeric_limits<TypeParam>::infinity();
  Sets<TypeParam> sets = make<TypeParam>("lattice", 7 * 70, 7 * 90, 3, 3);
  sets.batch = 7;
  sets.n = 70;
  sets.m = 90;
  sets.x_lengths = {70, 1, 0, 33, 500, 64, -4};
  sets.y_lengths = {90, 89, 20, 0, 90, 32, 0};
  const auto x = [&](std::int64_t b, std::int64_t i) {
    return &sets.x[static_cast<std::size_t>((b * 70 + i) * 3)];
  };
  const auto y = [&](std::int64_t b, std::int64_t i) {
    return &sets.y[static_cast<std::size_t>((b * 90 + i) * 3)];
  };
  x(1, 1)[0] = std::numeric_limits<TypeParam>::quiet_NaN();  // beyond its length
  x(4, 17)[2] = inf;
  x(4, 5)[1] = -inf;
  y(4, 0)[0] = inf;
  for (int i = 0; i < 32; ++i) y(5, i)[1] = inf;  // all of them
  check(sets, "ragged");
  Emulation<TypeParam> emulation(sets);
  EXPECT_EQ(emulation.info(4).first_infinite, 5);
  EXPECT_EQ(emulation.info(4).finite, 68);
  EXPECT_FALSE(emulation.info(1).nan);
  EXPECT_FALSE(emulation.sets().searches(5));  // every target is infinitely far
  EXPECT_TRUE(emulation.sets().searches(7 + 4));
  EXPECT_TRUE(emulation.sets().decision(2).made);
  EXPECT_EQ(emulation.sets().decision(2).value, infinity);
  EXPECT_TRUE(std::isnan(emulation.sets().decision(6).value));
  EXPECT_EQ(infinitely_far(emulation.info(4), emulation.info(7 + 4)), 5);
  EXPECT_EQ(infinitely_far(emulation.info(5), emulation.info(7 + 5)), 0);
  EXPECT_EQ(infinitely_far(emulation.info(0), emulation.info(7)), -1);

  x(0, 69)[2] = std::numeric_limits<TypeParam>::quiet_NaN();
  Emulation<TypeParam> with_nan(sets);
  EXPECT_TRUE(std::isnan(with_nan.sets().decision(0).value));
  EXPECT_FALSE(with_nan.sets().searches(0));
  EXPECT_FALSE(with_nan.sets().searches(7));
}

// A tree that prunes nothing would find all this too. Votes count the boxes and leaves a warp looks at: two a
// leaf and box, so over 1500 a packet where nothing is pruned.
TEST(WideTree, LooksAtFew) {
  for (const std::string shape :
       {"uniform", "noisy", "clusters", "outlier", "shells", "duplicates", "one point"}) {
    const Sets<float> sets = make<float>(shape, 9000, 24000, 3, 9);
    Emulation<float> emulation(sets);
    const auto packets = static_cast<double>(emulation.tree(0).leaves());
    std::vector<double> squared;
    std::vector<std::int64_t> near;
    emulation.warp.votes = 0;
    emulation.each(0, &squared, &near);
    const double each = static_cast<double>(emulation.warp.votes) / packets;
    emulation.warp.votes = 0;
    emulation.largest(0, 1);
    const double largest = static_cast<double>(emulation.warp.votes) / packets;
    RecordProperty(shape + " each", std::to_string(each));
    RecordProperty(shape + " largest", std::to_string(largest));
    EXPECT_LT(each, 600) << shape;
    EXPECT_LT(largest, 200) << shape;
  }
}

TEST(WideShape, HoldsEveryLeaf) {
  for (std::int64_t rows :
       {std::int64_t{0}, std::int64_t{1}, std::int64_t{32}, std::int64_t{33}, std::int64_t{1024},
        std::int64_t{1025}, std::int64_t{32768}, std::int64_t{3600000}, std::int64_t{2147483630}}) {
    const WideShape shape = wide_shape(rows);
    EXPECT_GE(shape.leaves * kLanes, rows);
    EXPECT_LE(shape.levels, kWideLevels);
    EXPECT_EQ(shape.nodes(shape.levels - 1), 1);
    std::int64_t below = shape.leaves, all = 0;
    for (int level = 0; level < shape.levels; ++level) {
      EXPECT_EQ(shape.nodes(level), (below + kLanes - 1) / kLanes);
      EXPECT_EQ(shape.before(level), all);
      below = shape.nodes(level);
      all += below;
    }
    EXPECT_EQ(shape.all_nodes(), all);
  }
}

TEST(ZOrder, KeepsSegmentsApartAndPointsWithoutKeysBehind) {
  for (std::int64_t segments : {2, 6, 1000, 1 << 20}) {
    for (std::int64_t d = 1; d <= 3; ++d) {
      const ZLayout layout = z_layout(segments, d);
      EXPECT_LE(layout.high_end(), 64);
      EXPECT_LE(layout.low_end(), 63);
      EXPECT_GE(std::int64_t{1} << layout.segment_bits, segments);
      SetInfo info;
      const double low[3] = {-1, -1, -1}, high[3] = {1, 1, 1};
      info.see(low, d, 0);
      info.see(high, d, 1);
      const ZCube cube = z_cube(info, 1, layout);
      const std::int64_t last = segments - 1;
      const ZKey first_key = z_key(low, 1, cube, last, layout), last_key = z_key(high, 1, cube, last, layout);
      const ZKey none = z_key_of_none(last, layout), before = z_key_of_none(last - 1, layout);
      const auto less = [](ZKey a, ZKey b) { return a.high < b.high || (a.high == b.high && a.low < b.low); };
      EXPECT_TRUE(less(before, first_key));
      EXPECT_TRUE(less(first_key, last_key));
      EXPECT_TRUE(less(last_key, none));
      // The sort looks at these bits only.
      EXPECT_EQ(none.high >> (layout.high_end() - 1) >> 1, 0u);
      EXPECT_EQ(none.low >> layout.low_end(), 0u);
    }
  }
}

TEST(Segments, AreFoundByTheirRows) {
  for (const Segments& all : {Segments{3, 5, 2}, Segments{3, 0, 2}, Segments{3, 5, 0}, Segments{1, 1, 1}}) {
    std::int64_t row = 0;
    for (std::int64_t s = 0; s < all.segments(); ++s) {
      EXPECT_EQ(all.origin(s), row);
      EXPECT_EQ(all.item(s), all.item(all.other(s)));
      EXPECT_EQ(all.other(all.other(s)), s);
      for (std::int64_t i = 0; i < all.rows(s); ++i) EXPECT_EQ(all.segment_of_row(row++), s);
    }
    EXPECT_EQ(row, all.all_rows());
  }
  const Segments pieces = in_pieces({2, 5, 0}, 4);
  EXPECT_EQ(pieces.n, 2);
  EXPECT_EQ(pieces.m, 0);
}

TEST(ZOrder, Interleaves) {
  EXPECT_EQ(z_spread(0b1011, 1), 0b1011u);
  EXPECT_EQ(z_spread(0b1011, 2), 0b1000101u);
  EXPECT_EQ(z_spread(0b1011, 3), 0b1000001001u);
  for (int d = 1; d <= 3; ++d) {
    for (int bit = 0; bit < kZBits; ++bit) {
      EXPECT_EQ(z_spread(std::uint64_t{1} << bit, d), std::uint64_t{1} << bit * d);
    }
  }
}

TEST(TreePays, ForManyPairsOfFewDimensions) {
  EXPECT_TRUE(tree_pays(1, 4e5, 3.6e6, 3, true));
  EXPECT_TRUE(tree_pays(1, 1e5, 1e5, 2, false));
  EXPECT_FALSE(tree_pays(1, 1e3, 1e3, 3, true));
  EXPECT_FALSE(tree_pays(64, 1e3, 1e3, 3, true));
  EXPECT_FALSE(tree_pays(1, 4e5, 3.6e6, 4, true));
  EXPECT_FALSE(tree_pays(3e5, 1e4, 1e4, 3, true));  // more rows than a uint32 counts
}

}  // namespace
}  // namespace rubriscope::ops
