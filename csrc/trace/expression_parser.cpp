// Reading of expressions and message templates: recursive descent, the precedence of Python.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>

#include "rubriscope/core/errors.h"
#include "rubriscope/trace/expression.h"

namespace rubriscope {

namespace {

constexpr int kMaxDepth = 64;
constexpr std::size_t kMaxNodes = 256;  // evaluation recurses over a chain of as many

bool starts_name(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }
bool is_digit(char c) { return c >= '0' && c <= '9'; }

std::string joined(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : ", ") + name;
  return text.empty() ? "none" : text;
}

}  // namespace

class ExpressionParser {
 public:
  ExpressionParser(Expression& into, const CallSignature& signature)
      : into_(into), text_(into.text_), signature_(signature) {}

  void parse() {
    into_.root_ = any_of();
    skip_space();
    if (at_ != text_.size()) fail("expected an operator or the end");
  }

 private:
  using Operator = Expression::Operator;
  using Comparison = Expression::Comparison;
  using Node = Expression::Node;

  [[noreturn]] void fail(const std::string& what) const {
    throw ValueError("expression \"" + std::string(text_) + "\": " + what + " at character " +
                     std::to_string(at_ + 1));
  }

  void skip_space() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\t')) ++at_;
  }

  bool take(std::string_view symbol) {
    skip_space();
    if (text_.substr(at_, symbol.size()) != symbol) return false;
    at_ += symbol.size();
    return true;
  }

  bool take_word(std::string_view word) {
    skip_space();
    if (text_.substr(at_, word.size()) != word) return false;
    const std::size_t end = at_ + word.size();
    if (end < text_.size() && (starts_name(text_[end]) || is_digit(text_[end]))) return false;
    at_ = end;
    return true;
  }

  std::string take_name() {
    skip_space();
    const std::size_t begin = at_;
    while (at_ < text_.size() && (starts_name(text_[at_]) || (at_ > begin && is_digit(text_[at_])))) ++at_;
    return std::string(text_.substr(begin, at_ - begin));
  }

  std::size_t add(Operator what, std::vector<std::size_t> operands) {
    if (into_.nodes_.size() == kMaxNodes)
      fail("more than " + std::to_string(kMaxNodes) + " values and operators");
    Node& node = into_.nodes_.emplace_back();
    node.what = what;
    node.operands = std::move(operands);
    return into_.nodes_.size() - 1;
  }

  std::size_t add(Operator what, CallReference reference) {
    const std::size_t node = add(what, std::vector<std::size_t>{});
    into_.nodes_[node].reference = std::move(reference);
    return node;
  }

  std::size_t add(ExpressionValue literal) {
    const std::size_t node = add(Operator::literal, std::vector<std::size_t>{});
    into_.nodes_[node].literal = std::move(literal);
    return node;
  }

  std::size_t binary(Operator what, std::size_t left, std::size_t right) {
    return add(what, std::vector<std::size_t>{left, right});
  }

  std::size_t unary(Operator what, std::size_t operand) {
    return add(what, std::vector<std::size_t>{operand});
  }

  // One level of parentheses, signs or `not`.
  class Deeper {
   public:
    explicit Deeper(ExpressionParser& parser) : parser_(parser) {
      if (++parser_.depth_ > kMaxDepth) parser_.fail("nested deeper than " + std::to_string(kMaxDepth));
    }
    ~Deeper() { --parser_.depth_; }
    Deeper(const Deeper&) = delete;
    Deeper& operator=(const Deeper&) = delete;

   private:
    ExpressionParser& parser_;
  };

  std::size_t joined_by(std::string_view word, Operator what, std::size_t (ExpressionParser::*next)()) {
    std::vector<std::size_t> operands{(this->*next)()};
    while (take_word(word)) operands.push_back((this->*next)());
    if (operands.size() == 1) return operands[0];
    return add(what, std::move(operands));
  }

  std::size_t any_of() {
    const Deeper deeper(*this);
    return joined_by("or", Operator::logical_or, &ExpressionParser::all_of);
  }

  std::size_t all_of() { return joined_by("and", Operator::logical_and, &ExpressionParser::negation); }

  std::size_t negation() {
    if (!take_word("not")) return comparison();
    const Deeper deeper(*this);
    return unary(Operator::logical_not, negation());
  }

  std::optional<Comparison> take_comparison() {
    if (take("==")) return Comparison::equal;
    if (take("!=")) return Comparison::unequal;
    if (take("<=")) return Comparison::less_equal;
    if (take(">=")) return Comparison::greater_equal;
    if (take("<")) return Comparison::less;
    if (take(">")) return Comparison::greater;
    return std::nullopt;
  }

  std::size_t comparison() {
    std::vector<std::size_t> operands{sum()};
    std::vector<Comparison> comparisons;
    while (const auto how = take_comparison()) {
      comparisons.push_back(*how);
      operands.push_back(sum());
    }
    if (comparisons.empty()) return operands[0];
    const std::size_t node = add(Operator::compare, std::move(operands));
    into_.nodes_[node].comparisons = std::move(comparisons);
    return node;
  }

  std::size_t sum() {
    std::size_t left = product();
    while (true) {
      if (take("+")) {
        left = binary(Operator::add, left, product());
      } else if (take("-")) {
        left = binary(Operator::subtract, left, product());
      } else {
        return left;
      }
    }
  }

  std::size_t product() {
    std::size_t left = signed_value();
    while (true) {
      if (take("//")) {
        left = binary(Operator::floor_divide, left, signed_value());
      } else if (take("/")) {
        left = binary(Operator::divide, left, signed_value());
      } else if (take("%")) {
        left = binary(Operator::modulo, left, signed_value());
      } else if (take("*")) {
        left = binary(Operator::multiply, left, signed_value());
      } else {
        return left;
      }
    }
  }

  std::size_t signed_value() {
    const Deeper deeper(*this);
    if (take("-")) return unary(Operator::negate, signed_value());
    if (take("+")) return signed_value();
    const std::size_t base = value();
    return take("**") ? binary(Operator::power, base, signed_value()) : base;
  }

  std::size_t value() {
    skip_space();
    if (at_ == text_.size()) fail("expected a value");
    const char c = text_[at_];
    if (c == '(') {
      ++at_;
      const std::size_t inner = any_of();
      if (!take(")")) fail("expected )");
      return inner;
    }
    if (c == '"' || c == '\'') return add(ExpressionValue::of(quoted()));
    if (is_digit(c) || c == '.') return add(ExpressionValue::of(number()));
    if (take_word("True")) return add(ExpressionValue::of(true));
    if (take_word("False")) return add(ExpressionValue::of(false));
    if (take_word("None")) {
      return add(ExpressionValue{ExpressionValue::Kind::none});
    }
    if (starts_name(c)) return named();
    fail("expected a value");
  }

  double number() {
    double value = 0.0;
    const char* const begin = text_.data() + at_;
    const auto [end, error] = std::from_chars(begin, text_.data() + text_.size(), value);
    if (error != std::errc{} || !std::isfinite(value)) fail("expected a finite number");
    at_ += static_cast<std::size_t>(end - begin);
    if (at_ < text_.size() && (starts_name(text_[at_]) || text_[at_] == '.')) fail("expected a number");
    return value;
  }

  std::string quoted() {
    const char quote = text_[at_++];
    std::string value;
    while (at_ < text_.size() && text_[at_] != quote) {
      if (text_[at_] == '\\' && ++at_ == text_.size()) break;
      value += text_[at_++];
    }
    if (at_ == text_.size()) fail("expected the closing quote");
    ++at_;
    return value;
  }

  std::size_t named() {
    const std::size_t begin = at_;
    const std::string name = take_name();
    if (take("(")) return function(name, begin);
    at_ = begin;
    return add(Operator::reference, reference());
  }

  std::size_t function(const std::string& name, std::size_t begin) {
    if (name == "len") {
      const std::size_t node = add(Operator::length, reference());
      if (!take(")")) fail("expected )");
      return node;
    }
    Operator what = Operator::absolute;
    if (name == "isnan") {
      what = Operator::is_nan;
    } else if (name == "min" || name == "max") {
      what = name == "min" ? Operator::minimum : Operator::maximum;
    } else if (name != "abs") {
      at_ = begin;
      fail("no function " + name + " (there are abs, isnan, len, max, min)");
    }
    std::vector<std::size_t> operands;
    do {
      operands.push_back(any_of());
    } while (take(","));
    if (!take(")")) fail("expected ) or ,");
    const bool single = what == Operator::absolute || what == Operator::is_nan;
    if (single && operands.size() != 1) fail(name + "() takes one value");
    return add(what, std::move(operands));
  }

  CallReference reference() {
    skip_space();
    const std::size_t begin = at_;
    const std::string root = take_name();
    CallReference reference{};
    if (root == "execution_time_ms") return {CallPart::execution_time};
    if (root == "cpu_time_ms") return {CallPart::cpu_time};
    if (root == "error") return {CallPart::error};
    if (root == "result") {
      reference = {CallPart::result};
    } else if (root == "args" || root == "metrics") {
      if (!take(".")) fail("expected ." + std::string(root == "args" ? "argument" : "metric"));
      const std::size_t member = at_;
      const std::string name = take_name();
      if (name.empty()) fail("expected a name");
      if (root == "metrics") return {CallPart::metric, 0, name};
      const std::size_t after = at_;
      at_ = member;
      reference = argument(name);
      at_ = after;
    } else {
      at_ = begin;
      fail("no value " + (root.empty() ? std::string("here") : root) +
           " (there are execution_time_ms, cpu_time_ms, result, error, args.NAME, metrics.NAME)");
    }
    reference.steps = steps();
    return reference;
  }

  CallReference argument(const std::string& name) const {
    const auto& positional = signature_.positional;
    const auto found = std::ranges::find(positional, name);
    if (found != positional.end()) {
      return {CallPart::positional, static_cast<std::size_t>(found - positional.begin()), name};
    }
    if (std::ranges::find(signature_.keyword_only, name) != signature_.keyword_only.end()) {
      return {CallPart::keyword, 0, name};
    }
    if (name == signature_.rest) return {CallPart::rest, positional.size(), name};
    if (signature_.any_keyword) return {CallPart::keyword, 0, name};
    std::vector<std::string> names = positional;
    if (!signature_.rest.empty()) names.push_back(signature_.rest);
    names.insert(names.end(), signature_.keyword_only.begin(), signature_.keyword_only.end());
    fail("no argument " + name + " (the function has " + joined(names) + ")");
  }

  std::vector<PathStep> steps() {
    std::vector<PathStep> steps;
    while (true) {
      if (take(".")) {
        const std::string name = take_name();
        if (name.empty()) fail("expected a name");
        if (name[0] == '_') fail("private names cannot be read, got " + name);
        steps.push_back({PathStep::Kind::attribute, name});
      } else if (take("[")) {
        steps.push_back(subscript());
        if (!take("]")) fail("expected ]");
      } else {
        return steps;
      }
    }
  }

  PathStep subscript() {
    skip_space();
    if (at_ < text_.size() && (text_[at_] == '"' || text_[at_] == '\''))
      return {PathStep::Kind::key, quoted()};
    std::int64_t index = 0;
    const char* const begin = text_.data() + at_;
    const auto [end, error] = std::from_chars(begin, text_.data() + text_.size(), index);
    if (error != std::errc{}) fail("expected a whole number or a quoted key");
    at_ += static_cast<std::size_t>(end - begin);
    return {PathStep::Kind::index, {}, index};
  }

  Expression& into_;
  std::string_view text_;
  const CallSignature& signature_;
  std::size_t at_{0};
  int depth_{0};
};

Expression::Expression(std::string_view text, const CallSignature& signature) : text_(text) {
  if (text.size() > kMaxCharacters) {
    throw ValueError("an expression has " + std::to_string(kMaxCharacters) + " characters at most, got " +
                     std::to_string(text.size()));
  }
  ExpressionParser(*this, signature).parse();
}

MessageTemplate::MessageTemplate(std::string_view text, const CallSignature& signature) {
  std::string plain;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c != '{' && c != '}') {
      plain += c;
    } else if (i + 1 < text.size() && text[i + 1] == c) {
      plain += c;
      ++i;
    } else {
      const std::size_t end = c == '{' ? text.find('}', i) : std::string_view::npos;
      if (end == std::string_view::npos) {
        throw ValueError("message \"" + std::string(text) + "\": single " + std::string(1, c) +
                         " at character " + std::to_string(i + 1) + "; expected {expression}, {{ or }}");
      }
      if (!plain.empty()) parts_.emplace_back(std::move(plain));
      plain.clear();
      parts_.emplace_back(Expression(text.substr(i + 1, end - i - 1), signature));
      i = end;
    }
  }
  if (!plain.empty()) parts_.emplace_back(std::move(plain));
}

}  // namespace rubriscope
