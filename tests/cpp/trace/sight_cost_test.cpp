#include "rubriscope/trace/sight_cost.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "rubriscope/core/errors.h"
#include "rubriscope/trace/sight_point.h"

namespace rubriscope {
namespace {

TokenUse use_of(double tokens, double input = NAN, double output = NAN, double cost = NAN) {
  return {tokens, input, output, cost};
}

TEST(TokenUse, AFlatPriceNeedsTheTokensAlone) {
  const TokenPrice flat{3.0, 3.0, 1e6};
  TokenUse use = use_of(2'000'000);
  use.complete(&flat);
  EXPECT_EQ(use.cost, 6.0);
  use = use_of(NAN, 1500, 500);
  use.complete(&flat);
  EXPECT_EQ(use.tokens, 2000);
  EXPECT_EQ(use.cost, 0.006);
}

TEST(TokenUse, APriceThatDiffersNeedsInputOrOutput) {
  const TokenPrice price{3.0, 15.0, 1e6};
  TokenUse use = use_of(NAN, 1'000'000, 200'000);
  use.complete(&price);
  EXPECT_EQ(use.tokens, 1'200'000);
  EXPECT_EQ(use.cost, 6.0);
  use = use_of(100);
  use.complete(&price);
  EXPECT_TRUE(std::isnan(use.cost));
  use = use_of(NAN, NAN, 10);
  use.complete(&price);
  EXPECT_EQ(use.cost, 150.0 / 1e6);
}

TEST(TokenUse, ACostThatWasGivenStays) {
  const TokenPrice price{1.0, 1.0, 1};
  TokenUse use = use_of(5, NAN, NAN, 0.25);
  use.complete(&price);
  EXPECT_EQ(use.cost, 0.25);
}

TEST(TokenUse, CountsAreWholeNumbers) {
  for (const double good : {0.0, 1.0, 1e12}) EXPECT_TRUE(TokenUse::is_count(good)) << good;
  for (const double bad : {-1.0, 0.5, 1e12 + 1, HUGE_VAL, -HUGE_VAL, std::nan("")}) {
    EXPECT_FALSE(TokenUse::is_count(bad)) << bad;
  }
}

TEST(CostSum, CompensatesWhatAPlainSumLoses) {
  CostSum sum;
  sum.add(use_of(1, NAN, NAN, 1e16), true);
  for (int i = 0; i < 1000; ++i) sum.add(use_of(1, NAN, NAN, 1.0), true);
  sum.add(use_of(1, NAN, NAN, -1e16), true);
  EXPECT_EQ(sum.cost(), 1000.0);
  EXPECT_EQ(sum.calls, 1002u);
  EXPECT_EQ(sum.tokens, 1002u);
  CostSum both;
  both.add(sum);
  both.add(sum);
  EXPECT_EQ(both.cost(), 2000.0);
}

TEST(CostSum, CountsTheCallsWhoseCostIsNotKnown) {
  CostSum priced, counted;
  priced.add(use_of(5), true);
  counted.add(use_of(5), false);
  counted.add(use_of(NAN), false);
  EXPECT_EQ(priced.unknown, 1u);
  EXPECT_EQ(counted.unknown, 1u);
  EXPECT_EQ(counted.tokens, 5u);
}

TEST(TraceCosts, KeepsTheTracesAddedToLast) {
  TraceCosts costs;
  std::mt19937 random(3);
  std::map<std::string, std::uint64_t> last;  // by trace: when it was added to
  const std::size_t traces = TraceCosts::kMostTraces + 300;
  std::uint64_t added = 0;
  for (std::uint64_t i = 0; i < 6000; ++i) {
    const std::string trace = "mmt_1_" + std::to_string(random() % traces);
    costs.add(trace, use_of(1, NAN, NAN, 0.5), true);
    last[trace] = i;
    ++added;
  }
  ASSERT_EQ(costs.size(), TraceCosts::kMostTraces);
  std::uint64_t kept = 0, before = 0;
  costs.for_each([&](const std::string& trace, const CostSum& sum) {
    kept += sum.tokens;
    EXPECT_GE(last.at(trace), before);
    before = last.at(trace);
  });
  EXPECT_GT(costs.dropped(), 0u);
  EXPECT_EQ(kept + costs.of_dropped().tokens, added);
  std::vector<std::uint64_t> times;
  for (const auto& [trace, time] : last) times.push_back(time);
  std::sort(times.rbegin(), times.rend());
  std::uint64_t oldest = added;
  costs.for_each([&](const std::string& trace, const CostSum&) { oldest = std::min(oldest, last[trace]); });
  EXPECT_EQ(oldest, times[TraceCosts::kMostTraces - 1]);
}

TEST(SightPoint, APriceNamesItsMetrics) {
  SightPoint point("p", "text_generation", {"quality"}, SightAction::metric);
  EXPECT_FALSE(point.billed());
  point.set_price({3.0, 15.0, 1e6});
  EXPECT_TRUE(point.billed());
  EXPECT_EQ(point.metrics(),
            (std::vector<std::string>{"quality", "token_count", "cost", "input_tokens", "output_tokens"}));
  EXPECT_THROW(point.set_price({-1.0, 1.0, 1}), ValueError);
  EXPECT_THROW(point.set_price({1.0, NAN, 1}), ValueError);
  EXPECT_THROW(point.set_price({1.0, 1.0, 0}), ValueError);
  SightPoint counted("q", "text_generation", {"token_count"}, SightAction::metric);
  EXPECT_TRUE(counted.billed());
  SightPoint other("r", "planning", {"cost"}, SightAction::metric);  // of a path, say
  EXPECT_FALSE(other.billed());
}

}  // namespace
}  // namespace rubriscope
