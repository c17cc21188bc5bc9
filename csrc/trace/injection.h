// What was asked, at run time, to be measured or told of a function's calls. No Python here.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "rubriscope/trace/expression.h"
#include "rubriscope/trace/sight_point.h"

namespace rubriscope {

struct Injection {
  std::string id;
  SightAction action{SightAction::metric};
  // A metric: its value and its place among the point's, and the limit that it may have.
  std::optional<Expression> value{};
  std::size_t metric{0};
  std::optional<double> limit{};
  // A message, told when the condition holds, or always.
  std::optional<Expression> condition{};
  std::optional<MessageTemplate> message{};
  std::string level{};  ///< of the logger

  bool enabled{true};
  std::uint64_t hits{0};       ///< calls at which it acted
  std::uint64_t undecided{0};  ///< calls whose value or condition could not be had
};

/// An injection whose limit was passed or whose condition held at a call.
struct InjectionHit {
  std::shared_ptr<Injection> injection;
  std::string
      violation;  ///< "execution_time_ms 1.3 > 1.2", or the condition; empty for an unconditional message
  std::string message;
};

/// Computes what injections measure into `values` and returns those that act, in their order. An injection
/// that `environment` makes impossible to decide is counted, and does not act.
std::vector<InjectionHit> run_injections(const SightInjections& injections, CallEnvironment& environment,
                                         std::span<double> values);

/// `name value > limit`.
std::string violation_text(std::string_view name, double value, double limit);

}  // namespace rubriscope
