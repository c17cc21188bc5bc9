#include "rubriscope/trace/sight_cost.h"

#include <cmath>
#include <iterator>

namespace rubriscope {

bool TokenUse::is_count(double value) {
  return value >= 0 && value <= kMostTokens && value == std::floor(value);
}

void TokenUse::complete(const TokenPrice* price) {
  const bool split = !std::isnan(input) || !std::isnan(output);
  const double in = std::isnan(input) ? 0 : input;
  const double out = std::isnan(output) ? 0 : output;
  if (std::isnan(tokens) && split) tokens = in + out;
  if (price == nullptr || !std::isnan(cost)) return;
  if (price->flat()) {
    cost = tokens * price->input / price->per;  // NaN where there are no tokens
  } else if (split) {
    cost = (in * price->input + out * price->output) / price->per;
  }
}

void CostSum::add(const TokenUse& use, bool priced) {
  ++calls;
  if (!std::isnan(use.tokens)) tokens += static_cast<std::uint64_t>(use.tokens);
  if (!std::isnan(use.input)) input_tokens += static_cast<std::uint64_t>(use.input);
  if (!std::isnan(use.output)) output_tokens += static_cast<std::uint64_t>(use.output);
  if (!std::isnan(use.cost)) {
    add_cost(use.cost);
  } else if (priced || std::isnan(use.tokens)) {
    ++unknown;
  }
}

void CostSum::add(const CostSum& other) {
  calls += other.calls;
  tokens += other.tokens;
  input_tokens += other.input_tokens;
  output_tokens += other.output_tokens;
  unknown += other.unknown;
  add_cost(other.sum_);
  add_cost(other.rest_);
}

void CostSum::add_cost(double cost) {
  const double sum = sum_ + cost;
  rest_ += std::abs(sum_) >= std::abs(cost) ? (sum_ - sum) + cost : (cost - sum) + sum_;
  sum_ = sum;
}

void TraceCosts::add(std::string_view trace, const TokenUse& use, bool priced) {
  const auto found = index_.find(trace);
  if (found != index_.end()) {
    order_.splice(order_.end(), order_, found->second);
    found->second->sum.add(use, priced);
    return;
  }
  if (order_.size() == kMostTraces) {
    One& oldest = order_.front();
    others_.add(oldest.sum);
    ++dropped_;
    index_.erase(oldest.trace);
    order_.pop_front();
  }
  order_.push_back({std::string(trace), {}});
  index_.emplace(order_.back().trace, std::prev(order_.end()));
  order_.back().sum.add(use, priced);
}

}  // namespace rubriscope
