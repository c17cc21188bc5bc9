#include "rubriscope/trace/sight_point.h"

#include <cmath>
#include <utility>

#include "rubriscope/core/errors.h"
#include "rubriscope/core/json.h"
#include "rubriscope/recorder/event.h"

namespace rubriscope {

SightAction sight_action_of_name(std::string_view name) {
  constexpr std::pair<std::string_view, SightAction> kActions[] = {{"log", SightAction::log},
                                                                   {"metric", SightAction::metric},
                                                                   {"alert", SightAction::alert},
                                                                   {"snapshot", SightAction::snapshot},
                                                                   {"fail_closed", SightAction::fail_closed}};
  for (const auto& [known, action] : kActions) {
    if (name == known) return action;
  }
  throw ValueError("no action \"" + std::string(name) +
                   "\" (there are log, metric, alert, snapshot, fail_closed)");
}

SightPoint::SightPoint(std::string name, std::string modality, std::vector<std::string> metrics,
                       SightAction action)
    : name_(std::move(name)), modality_(std::move(modality)), action_(action) {
  for (const std::string& one : metrics) {
    const std::size_t before = metrics_.size();
    metric(one);
    if (metrics_.size() == before) {
      throw ValueError("sight point \"" + name_ + "\" names the metric \"" + one + "\" twice");
    }
  }
}

std::size_t SightPoint::metric(std::string_view name) {
  for (std::size_t i = 0; i < metrics_.size(); ++i) {
    if (metrics_[i] == name) return i;
  }
  if (metrics_.size() == kMaxMetrics) {
    throw ValueError("sight point \"" + name_ + "\" has " + std::to_string(kMaxMetrics) +
                     " metrics already, no room for \"" + std::string(name) + "\"");
  }
  if (name == "latency_ms") latency_slot = metrics_.size();
  if (name == "cpu_time_ms") cpu_slot = metrics_.size();
  if (name == "token_count") token_slot = metrics_.size();
  if (name == "input_tokens") input_slot = metrics_.size();
  if (name == "output_tokens") output_slot = metrics_.size();
  if (name == "cost") cost_slot = metrics_.size();
  billed_ |= name == "token_count" || name == "input_tokens" || name == "output_tokens";
  metrics_.emplace_back(name);
  return metrics_.size() - 1;
}

void SightPoint::add_limit(std::string_view name, double limit) {
  if (!std::isfinite(limit)) {
    throw ValueError("the limit of \"" + std::string(name) + "\" is " + std::to_string(limit) +
                     ", expected a finite number");
  }
  limits_.push_back({metric(name), limit});
}

void SightPoint::set_price(const TokenPrice& price) {
  const auto possible = [](double value) { return std::isfinite(value) && value >= 0; };
  if (!possible(price.input) || !possible(price.output) || !std::isfinite(price.per) || price.per <= 0) {
    throw ValueError("sight point \"" + name_ +
                     "\": a price is a finite number from 0 for a number of tokens");
  }
  price_ = price;
  metric("token_count");
  metric("cost");
  if (price.flat()) return;
  metric("input_tokens");
  metric("output_tokens");
}

void SightPoint::check(std::size_t metric, double value) const {
  const bool tokens = metric == token_slot || metric == input_slot || metric == output_slot;
  if (tokens && !TokenUse::is_count(value)) {
    throw ValueError("sight point \"" + name_ + "\": " + metrics_[metric] +
                     " is a whole number from 0 to 10^12, got " + std::to_string(value));
  }
  if (metric == cost_slot && billed() && !std::isfinite(value)) {
    throw ValueError("sight point \"" + name_ + "\": a cost is a finite number, got " +
                     std::to_string(value));
  }
}

Schema SightPoint::schema() const {
  std::string attributes = "{\"modality\":";
  append_json_string(attributes, modality_);
  attributes += '}';
  return event_schema(name_, std::move(attributes), metrics_,
                      {"violation", "error", "arguments", "result", "message", "trace_id", "parent_id"});
}

}  // namespace rubriscope
