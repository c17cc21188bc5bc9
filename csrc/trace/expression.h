// Expressions over one call of a function: its arguments, its result, its metrics. A closed grammar, read
// once and never handed to an interpreter. No Python here; an Environment tells the values.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace rubriscope {

/// What an expression computes with. Three-valued: what could not be had, or makes no sense, is `unknown`.
struct ExpressionValue {
  enum class Kind {
    unknown,  ///< could not be had
    none,     ///< Python's None
    boolean,
    number,
    text,
    opaque,  ///< an object that is none of these: it is not None, and that is all
  };
  Kind kind{Kind::unknown};
  double number{0.0};  ///< of a boolean: 0 or 1
  std::string text{};

  static ExpressionValue of(bool value) { return {Kind::boolean, value ? 1.0 : 0.0}; }
  static ExpressionValue of(double value) { return {Kind::number, value}; }
  static ExpressionValue of(std::string value) { return {Kind::text, 0.0, std::move(value)}; }
};

/// Where a reference begins.
enum class CallPart {
  execution_time,  ///< execution_time_ms
  cpu_time,        ///< cpu_time_ms
  result,
  error,       ///< the type of the exception that was raised, or None
  positional,  ///< the argument in `place`
  keyword,     ///< the argument `name`, given by name
  rest,        ///< *args: those from `place` on
  metric,      ///< the metric `name`
};

/// `.name`, `[3]` or `["key"]`.
struct PathStep {
  enum class Kind { attribute, index, key };
  Kind kind;
  std::string name;
  std::int64_t index{0};
};

struct CallReference {
  CallPart part;
  std::size_t place{0};
  std::string name{};
  std::vector<PathStep> steps{};
};

/// The parameters of a function, as its calls give them.
struct CallSignature {
  std::vector<std::string> positional;
  std::vector<std::string> keyword_only;
  std::string rest{};       ///< the name behind `*`, or empty
  bool any_keyword{false};  ///< there is a `**`: a keyword of any name may be given
};

/// The values of one call.
class CallEnvironment {
 public:
  virtual ~CallEnvironment() = default;
  virtual ExpressionValue value(const CallReference& reference) = 0;
  /// Its len(), or unknown.
  virtual ExpressionValue length(const CallReference& reference) = 0;
  /// A short text of any object, for messages.
  virtual std::string describe(const CallReference& reference) = 0;
};

/// An expression such as `execution_time_ms > 1.2 and args.batch % 2 == 0`:
/// or, and, not; == != < <= > >= (chained as in Python); + - * / // % **; parentheses; numbers, 'text',
/// True, False, None; abs, min, max, isnan, len; execution_time_ms, cpu_time_ms, result, error, args.name,
/// metrics.name, each of the objects among them with .name, [3] and ["key"] behind it.
///
/// Numbers are float64; division by zero gives inf or nan. A comparison with an unknown value is unknown, as
/// is an order between values of different kinds; `and` and `or` are Kleene's.
class Expression {
 public:
  static constexpr std::size_t kMaxCharacters = 4096;

  /// Throws ValueError that says what was expected and where; also for an argument that `signature` lacks.
  Expression(std::string_view text, const CallSignature& signature);

  ExpressionValue evaluate(CallEnvironment& environment) const { return evaluate(root_, environment); }

  /// The reference, when the expression is nothing else; else nullptr.
  const CallReference* reference() const;

  const std::string& text() const { return text_; }

 private:
  friend class ExpressionParser;
  enum class Operator {
    literal,
    reference,
    length,
    logical_or,
    logical_and,
    logical_not,
    compare,
    add,
    subtract,
    multiply,
    divide,
    floor_divide,
    modulo,
    power,
    negate,
    absolute,
    is_nan,
    minimum,
    maximum,
  };
  enum class Comparison { equal, unequal, less, less_equal, greater, greater_equal };
  struct Node {
    Operator what{Operator::literal};
    ExpressionValue literal{};
    CallReference reference{};
    std::vector<std::size_t> operands{};
    std::vector<Comparison> comparisons{};
  };

  ExpressionValue evaluate(std::size_t node, CallEnvironment& environment) const;
  ExpressionValue logical(const Node& node, CallEnvironment& environment) const;
  ExpressionValue compared(const Node& node, CallEnvironment& environment) const;
  ExpressionValue arithmetic(const Node& node, CallEnvironment& environment) const;

  std::string text_;
  std::vector<Node> nodes_;
  std::size_t root_{0};
};

/// As people read numbers: `7`, `0.25`, `NaN`, `-inf`.
std::string number_text(double value);

/// What a condition comes to.
enum class Truth { no, yes, unknown };

/// As Python's bool(): 0, empty text and None are false; an opaque object is unknown.
Truth truth_of(const ExpressionValue& value);

/// A text with expressions in braces, `slow: {execution_time_ms} ms`; `{{` and `}}` are braces.
class MessageTemplate {
 public:
  /// Throws ValueError.
  MessageTemplate(std::string_view text, const CallSignature& signature);

  std::string fill(CallEnvironment& environment) const;

 private:
  std::vector<std::variant<std::string, Expression>> parts_;
};

}  // namespace rubriscope
