// What the tokens of sight points cost: prices, and running sums by point and by trace. No Python here; the
// binding's GIL guards it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <list>
#include <string>
#include <string_view>
#include <unordered_map>

namespace rubriscope {

/// The currency units that `per` tokens cost: those that went in (the prompt), and those that came out.
struct TokenPrice {
  double input;
  double output;
  double per;

  /// Whether one count of tokens tells the cost.
  bool flat() const { return input == output; }
};

/// The tokens of one call. NaN where a number was not given.
struct TokenUse {
  static constexpr double kUnknown = std::numeric_limits<double>::quiet_NaN();
  /// Beyond 2^53 a double skips whole numbers; this leaves the sums room for millions of such calls.
  static constexpr double kMostTokens = 1e12;

  double tokens{kUnknown};
  double input{kUnknown};
  double output{kUnknown};
  double cost{kUnknown};

  /// Whether a number may stand for tokens: a whole one, from 0 to kMostTokens.
  static bool is_count(double value);

  /// Fills in what follows from the rest: the tokens as input and output, the cost by `price` (nullptr: there
  /// is none). A cost that was given stays. Where the price of input and output differs the cost needs one of
  /// these two.
  void complete(const TokenPrice* price);
};

/// Sums over calls: counts are exact, the cost is a compensated sum (Neumaier).
class CostSum {
 public:
  /// Adds a call. A call that gives neither tokens nor a cost is one whose cost is not known; so is, where
  /// `priced`, one without a cost.
  void add(const TokenUse& use, bool priced);
  void add(const CostSum& other);

  std::uint64_t calls{0};
  std::uint64_t tokens{0};
  std::uint64_t input_tokens{0};
  std::uint64_t output_tokens{0};
  std::uint64_t unknown{0};  ///< calls whose cost is missing from the sum
  double cost() const { return sum_ + rest_; }

 private:
  void add_cost(double cost);

  double sum_{0};
  double rest_{0};
};

/// Sums by trace, for the traces that were added to last; the others are in one sum.
class TraceCosts {
 public:
  static constexpr std::size_t kMostTraces = 1024;

  void add(std::string_view trace, const TokenUse& use, bool priced);

  std::size_t size() const { return order_.size(); }
  std::uint64_t dropped() const { return dropped_; }     ///< how often a trace fell out
  const CostSum& of_dropped() const { return others_; }  ///< their sum

  /// From the trace that was added to longest ago.
  void for_each(const std::function<void(const std::string&, const CostSum&)>& visit) const {
    for (const One& one : order_) visit(one.trace, one.sum);
  }

 private:
  struct One {
    std::string trace;
    CostSum sum;
  };

  std::list<One> order_;  // a node stays where it is: the index looks into its text
  std::unordered_map<std::string_view, std::list<One>::iterator> index_;
  std::uint64_t dropped_{0};
  CostSum others_;
};

}  // namespace rubriscope
