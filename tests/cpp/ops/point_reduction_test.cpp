// The last steps of a reduction that the CUDA kernels share with the CPU: order statistics by digits, scans
// for ties, and what becomes of the directions' figures.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "rubriscope/ops/hausdorff/combine.h"
#include "rubriscope/ops/hausdorff/exact_scan.h"
#include "rubriscope/ops/hausdorff/rank.h"
#include "support/host_warp.h"

namespace rubriscope::ops {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

/// As cuda/hausdorff_reduce.cu counts: digit by digit, in pieces.
Rank rank_of(const std::vector<double>& numbers, double percentile) {
  Rank rank = start_rank(percentile, static_cast<std::int64_t>(numbers.size()));
  for (int shift = kFirstShift; shift >= 0; shift -= 8) {
    std::vector<unsigned int> counts(kDigits);
    for (const double number : numbers) {
      const unsigned long long bits = bits_of(number);
      if (rank.begins(bits, shift)) ++counts[static_cast<std::size_t>(Rank::digit(bits, shift))];
    }
    rank.pick(counts.data(), shift);
  }
  for (const double number : numbers) {
    if (number > rank.low()) rank.next = std::min(rank.next, bits_of(number));
  }
  return rank;
}

void check_rank(const std::vector<double>& numbers) {
  std::vector<double> sorted = numbers;
  std::sort(sorted.begin(), sorted.end());
  for (const double percentile : {0.0, 1.0, 37.5, 50.0, 66.6, 95.0, 99.9, 100.0}) {
    const double place = percentile / 100 * static_cast<double>(sorted.size() - 1);
    const auto below = static_cast<std::size_t>(place);
    const Rank rank = rank_of(numbers, percentile);
    EXPECT_EQ(rank.low(), sorted[below]) << percentile;
    EXPECT_EQ(rank.high(), sorted[std::min(below + 1, sorted.size() - 1)]) << percentile;
    EXPECT_EQ(rank.fraction, place - std::floor(place)) << percentile;
  }
}

TEST(Rank, IsTheSortedPlace) {
  std::mt19937_64 random(3);
  std::uniform_real_distribution<double> uniform(0, 1);
  for (int count : {1, 2, 3, 10, 257, 1000}) {
    std::vector<double> spread, equal, few;
    for (int i = 0; i < count; ++i) {
      spread.push_back(std::ldexp(uniform(random), static_cast<int>(2000 * uniform(random)) - 1000));
      equal.push_back(7);
      few.push_back(std::floor(3 * uniform(random)));
    }
    check_rank(spread);
    check_rank(equal);
    check_rank(few);
    few[few.size() / 2] = infinity;
    check_rank(few);
  }
}

TEST(Combine, FollowsTheDefinitions) {
  const double values[2] = {3, 5}, turned[2] = {5, 3}, equal[2] = {4, 4};
  const auto is = [](const Combined& found, double value, double x, double y) {
    EXPECT_EQ(found.value, value);
    EXPECT_EQ(found.factor[0], x);
    EXPECT_EQ(found.factor[1], y);
  };
  for (const PointReduction larger : {PointReduction::percentile, PointReduction::modified}) {
    is(combine(larger, 2, values), 5, 0, 1);
    is(combine(larger, 2, turned), 5, 1, 0);
    is(combine(larger, 2, equal), 4, 1, 0);
  }
  is(combine(PointReduction::mean, 2, values), 4, 0.5, 0.5);
  is(combine(PointReduction::chamfer, 2, values), 8, 1, 1);
  is(combine(PointReduction::chamfer_squared, 2, values), 8, 1, 1);
  is(combine(PointReduction::mean, 1, values), 3, 1, 0);
  is(combine(PointReduction::percentile, 1, values), 3, 1, 0);
  EXPECT_EQ(between(2, 4, 0.25), 2.5);
  EXPECT_EQ(between(infinity, infinity, 0.5), infinity);
  EXPECT_EQ(between(2, infinity, 0), 2);
  EXPECT_EQ(between(2, infinity, 0.1), infinity);
}

TEST(Farthest, IsSettledByPolicyThenByTheLarger) {
  SetInfo x, y;
  const double point[1] = {1}, far[1] = {infinity};
  for (SetInfo* set : {&x, &y}) set->see(point, 1, 0);
  const PointPair there{4, 10, 20}, back{9, 30, 40}, none;
  const auto is = [](const Farthest& found, double distance, std::int64_t i, std::int64_t j) {
    EXPECT_EQ(found.distance, distance);
    EXPECT_EQ(found.x, i);
    EXPECT_EQ(found.y, j);
  };
  const Decision open = decide(1, x, 1, y);
  EXPECT_FALSE(open.made);
  is(settle_largest(open, x, y, false, there, none, 2), 1, 10, 20);
  is(settle_largest(open, x, y, true, there, back, 1), 3, 40, 30);
  is(settle_largest(open, x, y, true, there, {4, 30, 40}, 1), 2, 10, 20);  // x's where equal
  is(settle_largest(open, x, y, true, none, back, 1), 3, 40, 30);          // x's all given up
  is(settle_largest(decide(0, {}, 1, y), {}, y, true, none, none, 1), infinity, -1, -1);
  EXPECT_TRUE(std::isnan(settle_largest(decide(0, {}, 0, {}), {}, {}, true, none, none, 1).distance));
  SetInfo with_far = y;
  with_far.see(far, 1, 1);
  is(settle_largest(open, x, with_far, false, there, none, 1), 2, 10, 20);  // nobody's neighbour
  is(settle_largest(open, x, with_far, true, there, back, 1), infinity, 0, 1);
  is(settle_largest(open, with_far, x, true, there, back, 1), infinity, 1, 0);
  SetInfo only_far;
  only_far.see(far, 1, 0);
  is(settle_largest(open, x, only_far, false, none, none, 1), infinity, 0, 0);
}

TEST(ExactScan, TakesTheLowestOfTheNearest) {
  const HostWarp warp;
  std::mt19937_64 random(5);
  std::uniform_int_distribution<int> coordinate(-2, 2);
  for (int count : {1, 2, 31, 32, 33, 70, 200}) {
    for (int d : {1, 3, 6}) {
      std::vector<float> targets, query;
      for (int i = 0; i < count * d; ++i) targets.push_back(static_cast<float>(coordinate(random)));
      for (int k = 0; k < d; ++k) query.push_back(static_cast<float>(coordinate(random)));
      if (count > 2) targets[0] = std::numeric_limits<float>::infinity();
      PointPair expected{infinity, 7, 0};
      for (int j = 0; j < count; ++j) {
        double sum = 0;
        for (int k = 0; k < d; ++k) {
          const double difference = 4 * (static_cast<double>(query[static_cast<std::size_t>(k)]) -
                                         targets[static_cast<std::size_t>(j * d + k)]);
          sum += difference * difference;
        }
        if (sum < expected.squared) expected = {sum, 7, j};
      }
      const PointPair found = exact_scan(warp, query.data(), 7, targets.data(), count, d, 4.0);
      EXPECT_EQ(found.squared, expected.squared);
      EXPECT_EQ(found.query, 7);
      EXPECT_EQ(found.target, expected.target) << count << " targets, " << d << "-D";
    }
  }
  const float query[1] = {0},
              far[2] = {std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity()};
  const PointPair found = exact_scan(warp, query, 0, far, 2, 1, 1.0);
  EXPECT_EQ(found.squared, infinity);
  EXPECT_EQ(found.target, 0);
}

}  // namespace
}  // namespace rubriscope::ops
