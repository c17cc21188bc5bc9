#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "rubriscope/core/errors.h"
#include "rubriscope/trace/sight_point.h"
#include "rubriscope/trace/sight_sketch.h"
#include "rubriscope/trace/sight_window.h"

namespace rubriscope {
namespace {

TEST(SightSketch, QuantilesAreWithinTheirBound) {
  std::mt19937_64 random(7);
  std::lognormal_distribution<double> times(10.0, 4.0);
  SightSketch sketch;
  std::vector<std::uint64_t> all;
  for (int i = 0; i < 20'000; ++i) {
    all.push_back(static_cast<std::uint64_t>(times(random)));
    sketch.add(all.back());
  }
  std::sort(all.begin(), all.end());
  for (const double q : {0.0001, 0.01, 0.5, 0.95, 0.99, 0.999, 1.0}) {
    const auto rank = static_cast<std::size_t>(std::ceil(q * static_cast<double>(all.size())));
    const auto exact = static_cast<double>(all[std::max<std::size_t>(rank, 1) - 1]);
    EXPECT_LE(std::abs(sketch.quantile(q) - exact), exact / 128) << q;
  }
}

TEST(SightSketch, EveryPowerOfTwoAndItsNeighboursHaveTheirBucket) {
  for (int power = 0; power < 64; ++power) {
    const std::uint64_t at = std::uint64_t{1} << power;
    for (const std::uint64_t value : {at - 1, at, at + 1}) {
      SightSketch sketch;
      sketch.add(value);
      const auto exact = static_cast<double>(value);
      EXPECT_LE(std::abs(sketch.quantile(0.5) - exact), exact / 128) << value;
    }
  }
  SightSketch greatest;
  greatest.add(~std::uint64_t{0});
  EXPECT_NEAR(greatest.quantile(1.0) / 18446744073709551615.0, 1.0, 1.0 / 128);
}

TEST(SightSketch, NothingAddedIsZero) { EXPECT_EQ(SightSketch().quantile(0.5), 0.0); }

TEST(SightPoint, RefusesWhatIsTwiceAndWhatIsUnknown) {
  EXPECT_THROW(SightPoint("p", "simulation", {"a", "a"}, SightAction::metric), ValueError);
  EXPECT_THROW(sight_action_of_name("explode"), ValueError);
  SightPoint point("p", "simulation", {"a"}, SightAction::metric);
  EXPECT_THROW(point.add_limit("a", NAN), ValueError);
  for (std::size_t i = 1; i < SightPoint::kMaxMetrics; ++i) point.metric("m" + std::to_string(i));
  EXPECT_THROW(point.metric("one more"), ValueError);
  EXPECT_EQ(point.metric("a"), 0u);
}

TEST(SightWindow, KeepsTheLast) {
  const SightPoint point("p", "simulation", {}, SightAction::metric);
  SightWindow window;
  for (std::uint64_t i = 0; i < SightWindow::kCapacity + 5; ++i) {
    const double value = static_cast<double>(i);
    window.push(point, i, i, Outcome::success, {&value, 1}, i % 2 == 0 ? "mmt_1_ab" : "", "sys_1_cd");
  }
  ASSERT_EQ(window.size(), SightWindow::kCapacity);
  for (std::size_t i = 0; i < window.size(); ++i) {
    ASSERT_EQ(window.at(i).duration_ns, i + 5);
    ASSERT_EQ(window.at(i).values.at(0), static_cast<double>(i + 5));
    ASSERT_EQ(window.at(i).trace_id, (i + 5) % 2 == 0 ? "mmt_1_ab" : "");
  }
}

}  // namespace
}  // namespace rubriscope
