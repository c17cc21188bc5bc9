#include "rubriscope/rubric/rubric.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <stdexcept>
#include <thread>
#include <vector>

#include "rubriscope/core/errors.h"
#include "rubriscope/rubric/text_rubrics.h"

namespace rubriscope {
namespace {

class Constant : public Rubric {
 public:
  explicit Constant(double value) : value_(value) {}

 protected:
  Score forward(const Value&, const Value&) override {
    ++calls;
    return value_;
  }

 public:
  int calls = 0;

 private:
  double value_;
};

struct Fails : Rubric {
  Score forward(const Value&, const Value&) override { throw std::domain_error("no"); }
};

// A composite of its own: max of two children.
struct Best : Rubric {
  Best() {
    add("first", std::make_shared<Constant>(0.25));
    add("second", std::make_shared<Constant>(0.75));
  }
  Score forward(const Value& action, const Value& observation) override {
    return std::max(get_rubric("first")(action, observation).value,
                    get_rubric("second")(action, observation).value);
  }
};

RubricPtr constant(double value) { return std::make_shared<Constant>(value); }
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

TEST(Sequential, StopsAtExactlyZero) {
  const auto last = std::make_shared<Constant>(0.5);
  Sequential stops({constant(1.0), constant(0.0), last});
  EXPECT_EQ(stops(1, 2), 0.0);
  EXPECT_EQ(last->calls, 0);
  EXPECT_EQ(Sequential({constant(1e-300), last})(1, 2), 0.5);
  EXPECT_EQ(Sequential({})(1, 2), 1.0);
}

TEST(Gate, PassesFromItsThresholdOn) {
  EXPECT_EQ(Gate(constant(0.5), 0.5)(1, 2), 0.5);
  EXPECT_EQ(Gate(constant(0.4999), 0.5)(1, 2), 0.0);
  EXPECT_EQ(Gate(constant(0.999))(1, 2), 0.0);
}

TEST(Gate, NeverPassesWhatIsNotFinite) {
  const double infinity = std::numeric_limits<double>::infinity();
  for (const double score : {kNan, infinity, -infinity}) {
    EXPECT_EQ(Gate(constant(score), -infinity)(1, 2), 0.0) << score;
  }
}

TEST(WeightedSum, AddsUp) {
  EXPECT_DOUBLE_EQ(WeightedSum({constant(1.0), constant(0.5)}, {0.25, 0.75})(1, 2), 0.625);
}

TEST(WeightedSum, AWeightOfZeroAddsExactlyZero) {
  EXPECT_EQ(WeightedSum({constant(kNan), constant(0.5)}, {0.0, 1.0})(1, 2), 0.5);
  EXPECT_TRUE(std::isnan(WeightedSum({constant(kNan), constant(0.5)}, {0.5, 0.5})(1, 2).value));
}

TEST(WeightedSum, RefusesWeightsThatDoNotFit) {
  EXPECT_THROW(WeightedSum({constant(1.0)}, {0.5, 0.5}), ValueError);
  EXPECT_THROW(WeightedSum({constant(1.0), constant(1.0)}, {0.5, 0.4}), ValueError);
  EXPECT_THROW(WeightedSum({constant(1.0)}, {kNan}), ValueError);
  EXPECT_NO_THROW(WeightedSum({constant(1.0), constant(1.0)}, {0.5, 0.5 + 9e-7}));
}

TEST(Rubric, FindsDescendantsByPath) {
  WeightedSum root({std::make_shared<Gate>(std::make_shared<Best>(), 0.1)}, {1.0});
  EXPECT_EQ(root.get_rubric("rubric_0.rubric.second")(1, 2), 0.75);
  try {
    root.get_rubric("rubric_0.nothing.second");
    FAIL() << "expected KeyError";
  } catch (const KeyError& error) {
    const std::string text = error.what();
    EXPECT_NE(text.find("'nothing'"), std::string::npos) << text;
    EXPECT_NE(text.find("rubric_0"), std::string::npos) << text;
  }
}

TEST(Rubric, RefusesCyclesAndBadNames) {
  const auto parent = std::make_shared<Best>();
  const auto child = std::make_shared<Best>();
  parent->add("below", child);
  EXPECT_THROW(child->add("above", parent), ValueError);
  EXPECT_THROW(parent->add("me", parent), ValueError);
  EXPECT_THROW(parent->add("", constant(1)), ValueError);
  EXPECT_THROW(parent->add("a.b", constant(1)), ValueError);
}

TEST(Rubric, HooksRunInOrderAroundChildren) {
  const auto leaf = std::make_shared<Constant>(1.0);
  Gate gate(leaf);
  std::vector<std::string> order;
  gate.register_forward_pre_hook([&](Rubric&, const Value&, const Value&) { order.push_back("gate pre"); });
  leaf->register_forward_pre_hook([&](Rubric&, const Value& action, const Value&) {
    order.push_back("leaf pre " + std::to_string(action.as<int>()));
  });
  auto handle = leaf->register_forward_hook([&](Rubric&, const Value&, const Value&, const Score& score) {
    order.push_back("leaf " + std::to_string(static_cast<int>(score.value)));
  });
  gate.register_forward_hook(
      [&](Rubric&, const Value&, const Value&, const Score&) { order.push_back("gate"); });
  gate(7, 0);
  EXPECT_EQ(order, (std::vector<std::string>{"gate pre", "leaf pre 7", "leaf 1", "gate"}));
  handle.remove();
  order.clear();
  gate(7, 0);
  EXPECT_EQ(order, (std::vector<std::string>{"gate pre", "leaf pre 7", "gate"}));
}

TEST(Rubric, ExceptionsReachTheCallerAndLeaveTheTreeUsable) {
  const auto fails = std::make_shared<Fails>();
  WeightedSum root({constant(1.0), fails}, {0.5, 0.5});
  EXPECT_THROW(root(1, 2), std::domain_error);
  EXPECT_EQ(root.get_rubric("rubric_0")(1, 2), 1.0);
}

TEST(Rubric, StrictRefusesWhatIsNotFinite) {
  Constant rubric(kNan);
  EXPECT_TRUE(std::isnan(rubric(1, 2).value));
  rubric.strict = true;
  EXPECT_THROW(rubric(1, 2), ValueError);
}

TEST(Rubric, KnowsItsLastScoreAndItsName) {
  Best best;
  EXPECT_TRUE(std::isnan(best.last_score()));
  best(1, 2);
  EXPECT_EQ(best.last_score(), 0.75);
  EXPECT_EQ(best.class_name(), "Best");
}

TEST(Rubric, IsCalledFromManyThreads) {
  WeightedSum root({std::make_shared<FuzzyMatch>(), std::make_shared<ExactMatch>()}, {0.5, 0.5});
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&root, t] {
      const std::string text(static_cast<std::size_t>(t + 1), 'x');
      for (int i = 0; i < 200; ++i) EXPECT_EQ(root(text, text), 1.0);
    });
  }
  for (auto& thread : threads) thread.join();
}

TEST(Value, SaysWhatItExpectedAndGot) {
  const std::string text = "abc";
  const Value value(text);
  EXPECT_EQ(value.text(), "abc");
  EXPECT_EQ(value.get<int>(), nullptr);
  try {
    value.as<int>();
    FAIL() << "expected TypeError";
  } catch (const TypeError& error) {
    EXPECT_NE(std::string(error.what()).find("int"), std::string::npos) << error.what();
  }
  EXPECT_EQ(Value("literal").text(), "literal");
  EXPECT_THROW(Value(5).text(), TypeError);
}

// Distances from the literature and from Python's rapidfuzz.
TEST(TextRubrics, Levenshtein) {
  EXPECT_EQ(levenshtein("kitten", "sitting"), 3u);
  EXPECT_EQ(levenshtein("saturday", "sunday"), 3u);
  EXPECT_EQ(levenshtein("", "abc"), 3u);
  EXPECT_EQ(levenshtein("naïve", "naive"), 1u);
  EXPECT_EQ(levenshtein("日本語", "日本"), 1u);
  EXPECT_EQ(levenshtein("\xff\xfe", "\xff"), 1u);
}

TEST(TextRubrics, Scores) {
  EXPECT_EQ(ExactMatch()(" a ", "a"), 1.0);
  EXPECT_EQ(ExactMatch(false)(" a ", "a"), 0.0);
  EXPECT_EQ(ExactMatch(true, true)("Ab", "aB"), 1.0);
  EXPECT_DOUBLE_EQ(FuzzyMatch()("kitten", "sitting"), 1.0 - 3.0 / 7.0);
  EXPECT_EQ(FuzzyMatch()("", ""), 1.0);
  EXPECT_EQ(RegexMatch("\\d+")("a12", ""), 1.0);
  EXPECT_EQ(RegexMatch("\\d+", true)("a12", ""), 0.0);
  EXPECT_EQ(LengthBetween(2, 3)("äöü", ""), 1.0);
  EXPECT_EQ(LengthBetween(2, 3)("äöüß", ""), 0.0);
  EXPECT_THROW(RegexMatch("("), ValueError);
  EXPECT_THROW(LengthBetween(3, 2), ValueError);
}

}  // namespace
}  // namespace rubriscope
