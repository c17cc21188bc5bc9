#include "rubriscope/trace/expression.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "rubriscope/core/json.h"

namespace rubriscope {

namespace {

using Kind = ExpressionValue::Kind;

bool is_number(const ExpressionValue& value) {
  return value.kind == Kind::number || value.kind == Kind::boolean;
}

ExpressionValue of_truth(Truth truth) {
  return truth == Truth::unknown ? ExpressionValue{} : ExpressionValue::of(truth == Truth::yes);
}

// The remainder has the divisor's sign, as in Python.
double modulo(double a, double b) {
  const double rest = std::fmod(a, b);
  return rest != 0.0 && (rest < 0.0) != (b < 0.0) ? rest + b : rest;
}

Truth equal(const ExpressionValue& a, const ExpressionValue& b) {
  if (a.kind == Kind::unknown || b.kind == Kind::unknown) return Truth::unknown;
  if (is_number(a) && is_number(b)) return a.number == b.number ? Truth::yes : Truth::no;
  if (a.kind == Kind::none || b.kind == Kind::none) return a.kind == b.kind ? Truth::yes : Truth::no;
  if (a.kind == Kind::opaque || b.kind == Kind::opaque) return Truth::unknown;
  if (a.kind != b.kind) return Truth::no;
  return a.text == b.text ? Truth::yes : Truth::no;
}

// Below 0, 0 or above for a before, at or after b; nothing where they have no order. NaN has none, but is no
// unknown: each comparison with it is false.
std::optional<double> order(const ExpressionValue& a, const ExpressionValue& b) {
  if (is_number(a) && is_number(b)) {
    if (std::isnan(a.number) || std::isnan(b.number)) return std::nan("");
    return a.number < b.number ? -1.0 : static_cast<double>(a.number > b.number);
  }
  if (a.kind == Kind::text && b.kind == Kind::text) return static_cast<double>(a.text.compare(b.text));
  return std::nullopt;
}

std::string shown(const ExpressionValue& value) {
  switch (value.kind) {
    case Kind::unknown:
      return "?";
    case Kind::none:
      return "None";
    case Kind::boolean:
      return value.number != 0.0 ? "True" : "False";
    case Kind::text:
      return value.text;
    case Kind::opaque:
      return "object";
    case Kind::number:
      break;
  }
  return number_text(value.number);
}

}  // namespace

std::string number_text(double value) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  std::string text;
  constexpr double kExact = 9007199254740992.0;  // whole numbers up to 2^53
  if (std::trunc(value) == value && std::abs(value) <= kExact) {
    append_json_number(text, static_cast<std::int64_t>(value));
  } else {
    append_json_number(text, value);
  }
  return text;
}

Truth truth_of(const ExpressionValue& value) {
  switch (value.kind) {
    case Kind::none:
      return Truth::no;
    case Kind::boolean:
    case Kind::number:
      return value.number != 0.0 ? Truth::yes : Truth::no;
    case Kind::text:
      return value.text.empty() ? Truth::no : Truth::yes;
    case Kind::unknown:
    case Kind::opaque:
      break;
  }
  return Truth::unknown;
}

const CallReference* Expression::reference() const {
  const Node& node = nodes_[root_];
  return node.what == Operator::reference ? &node.reference : nullptr;
}

ExpressionValue Expression::evaluate(std::size_t index, CallEnvironment& environment) const {
  const Node& node = nodes_[index];
  switch (node.what) {
    case Operator::literal:
      return node.literal;
    case Operator::reference:
      return environment.value(node.reference);
    case Operator::length:
      return environment.length(node.reference);
    case Operator::logical_or:
    case Operator::logical_and:
    case Operator::logical_not:
      return logical(node, environment);
    case Operator::compare:
      return compared(node, environment);
    default:
      return arithmetic(node, environment);
  }
}

ExpressionValue Expression::logical(const Node& node, CallEnvironment& environment) const {
  if (node.what == Operator::logical_not) {
    const Truth truth = truth_of(evaluate(node.operands[0], environment));
    if (truth == Truth::unknown) return {};
    return ExpressionValue::of(truth == Truth::no);
  }
  const Truth decides = node.what == Operator::logical_or ? Truth::yes : Truth::no;
  bool unknown = false;
  for (const std::size_t operand : node.operands) {
    const Truth truth = truth_of(evaluate(operand, environment));
    if (truth == decides) return of_truth(decides);
    unknown |= truth == Truth::unknown;
  }
  return unknown ? ExpressionValue{} : ExpressionValue::of(decides == Truth::no);
}

ExpressionValue Expression::compared(const Node& node, CallEnvironment& environment) const {
  ExpressionValue left = evaluate(node.operands[0], environment);
  bool unknown = false;
  for (std::size_t i = 0; i < node.comparisons.size(); ++i) {
    ExpressionValue right = evaluate(node.operands[i + 1], environment);
    const Comparison how = node.comparisons[i];
    Truth truth = Truth::unknown;
    if (how == Comparison::equal || how == Comparison::unequal) {
      truth = equal(left, right);
      if (how == Comparison::unequal && truth != Truth::unknown) {
        truth = truth == Truth::yes ? Truth::no : Truth::yes;
      }
    } else if (const std::optional<double> ordered = order(left, right)) {
      const bool holds = how == Comparison::less         ? *ordered < 0
                         : how == Comparison::less_equal ? *ordered <= 0
                         : how == Comparison::greater    ? *ordered > 0
                                                         : *ordered >= 0;
      truth = holds ? Truth::yes : Truth::no;
    }
    if (truth == Truth::no) return ExpressionValue::of(false);
    unknown |= truth == Truth::unknown;
    left = std::move(right);
  }
  return unknown ? ExpressionValue{} : ExpressionValue::of(true);
}

ExpressionValue Expression::arithmetic(const Node& node, CallEnvironment& environment) const {
  std::vector<double> x;
  for (const std::size_t operand : node.operands) {
    const ExpressionValue value = evaluate(operand, environment);
    if (!is_number(value)) return {};
    x.push_back(value.number);
  }
  switch (node.what) {
    case Operator::add:
      return ExpressionValue::of(x[0] + x[1]);
    case Operator::subtract:
      return ExpressionValue::of(x[0] - x[1]);
    case Operator::multiply:
      return ExpressionValue::of(x[0] * x[1]);
    case Operator::divide:
      return ExpressionValue::of(x[0] / x[1]);
    case Operator::floor_divide:
      return ExpressionValue::of(std::floor(x[0] / x[1]));
    case Operator::modulo:
      return ExpressionValue::of(modulo(x[0], x[1]));
    case Operator::power:
      return ExpressionValue::of(std::pow(x[0], x[1]));
    case Operator::negate:
      return ExpressionValue::of(-x[0]);
    case Operator::absolute:
      return ExpressionValue::of(std::abs(x[0]));
    case Operator::is_nan:
      return ExpressionValue::of(std::isnan(x[0]));
    case Operator::minimum:
      return ExpressionValue::of(*std::ranges::min_element(x));
    case Operator::maximum:
      return ExpressionValue::of(*std::ranges::max_element(x));
    default:
      return {};
  }
}

std::string MessageTemplate::fill(CallEnvironment& environment) const {
  std::string text;
  for (const auto& part : parts_) {
    if (const auto* const plain = std::get_if<std::string>(&part)) {
      text += *plain;
      continue;
    }
    const Expression& expression = std::get<Expression>(part);
    const ExpressionValue value = expression.evaluate(environment);
    const CallReference* const reference = expression.reference();
    text +=
        value.kind == Kind::opaque && reference != nullptr ? environment.describe(*reference) : shown(value);
  }
  return text;
}

}  // namespace rubriscope
