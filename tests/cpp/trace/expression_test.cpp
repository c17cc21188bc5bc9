#include "rubriscope/trace/expression.h"

#include <gtest/gtest.h>

#include <map>
#include <random>

#include "rubriscope/core/errors.h"
#include "rubriscope/trace/injection.h"

namespace rubriscope {
namespace {

using Kind = ExpressionValue::Kind;

const CallSignature kSignature{.positional = {"a", "b"}, .keyword_only = {"c"}};

struct Call : CallEnvironment {
  std::map<std::string, ExpressionValue> arguments{{"a", ExpressionValue::of(3.0)},
                                                   {"b", ExpressionValue::of(std::string("text"))}};
  int asked = 0;

  ExpressionValue value(const CallReference& reference) override {
    ++asked;
    if (reference.part == CallPart::execution_time) return ExpressionValue::of(1.5);
    const auto found = arguments.find(reference.name);
    return found == arguments.end() ? ExpressionValue{} : found->second;
  }
  ExpressionValue length(const CallReference&) override { return ExpressionValue::of(4.0); }
  std::string describe(const CallReference&) override { return "<object>"; }
};

Truth holds(std::string_view text) {
  Call call;
  return truth_of(Expression(text, kSignature).evaluate(call));
}

TEST(Expression, HasPythonsPrecedence) {
  for (const char* const text :
       {"1 + 2 * 3 == 7", "-2 ** 2 == -4", "2 ** -1 == 0.5", "2 ** 3 ** 2 == 512", "not 1 == 2",
        "1 < 2 < 3 and not 1 < 3 < 2", "True or False and False", "7 // 2 == 3 and -7 % 3 == 2",
        "(1 + 2) * 3 == 9", "args.a == 3 and args.b == 'text'", "execution_time_ms > 1.2", "len(args.b) == 4",
        "min(3, 1, 2) == 1", "\"it's\" == 'it\\'s'", "1e3 == 1000 and .5 == 0.5", "args.b != None"}) {
    EXPECT_EQ(holds(text), Truth::yes) << text;
  }
}

TEST(Expression, UnknownIsKleenes) {
  EXPECT_EQ(holds("args.c > 1"), Truth::unknown);
  EXPECT_EQ(holds("args.c > 1 or args.a == 3"), Truth::yes);
  EXPECT_EQ(holds("args.c > 1 and args.a == 4"), Truth::no);
  EXPECT_EQ(holds("args.b < 3"), Truth::unknown);
}

TEST(Expression, StopsWhereTheRestDecidesNothing) {
  Call call;
  Expression("args.a == 3 or args.b == 'x'", kSignature).evaluate(call);
  EXPECT_EQ(call.asked, 1);
}

TEST(Expression, RandomTextIsReadOrRefused) {
  const std::vector<std::string> pieces{"args.a", "args", ".",  "b",    "(",    ")",      "[", "]",
                                        "1",      "-",    "**", "not ", "and ", "or ",    "<", "=",
                                        "'",      "\"",   "\\", "len(", ",",    "result", "é"};
  std::mt19937_64 random(3);
  int read = 0;
  for (int i = 0; i < 50'000; ++i) {
    std::string text;
    for (std::uint64_t n = random() % 12; n > 0; --n) text += pieces[random() % pieces.size()];
    try {
      Call call;
      Expression(text, kSignature).evaluate(call);
      ++read;
    } catch (const ValueError&) {
    }
  }
  EXPECT_GT(read, 500);
}

TEST(Expression, CannotBeNestedOrLongWithoutEnd) {
  EXPECT_THROW(holds(std::string(4000, '(')), ValueError);
  EXPECT_THROW(holds(std::string(4000, '-') + "1"), ValueError);
  EXPECT_THROW(holds(std::string(5000, '1')), ValueError);
  std::string chain = "1";
  for (int i = 0; i < 1000; ++i) chain += "+1";
  EXPECT_THROW(holds(chain), ValueError);
}

TEST(MessageTemplate, FillsBraces) {
  Call call;
  call.arguments["c"] = {Kind::opaque};
  const MessageTemplate message("{{{args.a}}} {args.b} {args.c} {args.a > 2} {metrics.m}", kSignature);
  EXPECT_EQ(message.fill(call), "{3} text <object> True ?");
  EXPECT_THROW(MessageTemplate("a { b", kSignature), ValueError);
  EXPECT_THROW(MessageTemplate("{}", kSignature), ValueError);
}

TEST(Injections, MeasureAndAct) {
  const auto metric = std::make_shared<Injection>();
  metric->id = "metric";
  metric->action = SightAction::alert;
  metric->value.emplace("args.a", kSignature);
  metric->metric = 1;
  metric->limit = 2.0;
  const auto log = std::make_shared<Injection>();
  log->condition.emplace("metrics.none > 1", kSignature);
  log->message.emplace("never", kSignature);
  const auto resting = std::make_shared<Injection>(*metric);
  resting->enabled = false;
  std::vector<double> values(2, 0.0);
  Call call;
  const auto hits = run_injections({metric, log, resting}, call, values);
  ASSERT_EQ(hits.size(), 1U);
  EXPECT_EQ(hits[0].violation, "args.a 3 > 2");
  EXPECT_EQ(values[1], 3.0);
  EXPECT_EQ(metric->hits, 1U);
  EXPECT_EQ(log->undecided, 1U);
  EXPECT_EQ(resting->hits, 0U);
  call.arguments["a"] = ExpressionValue::of(std::nan(""));
  EXPECT_EQ(run_injections({metric}, call, values).at(0).violation, "args.a NaN > 2");
}

}  // namespace
}  // namespace rubriscope
