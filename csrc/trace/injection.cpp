#include "rubriscope/trace/injection.h"

namespace rubriscope {

namespace {

using Kind = ExpressionValue::Kind;

// The value may be NaN, which is beyond any limit.
bool measure(Injection& injection, CallEnvironment& environment, std::span<double> values,
             InjectionHit& hit) {
  const ExpressionValue value = injection.value->evaluate(environment);
  if (value.kind != Kind::number && value.kind != Kind::boolean) {
    ++injection.undecided;
    return false;
  }
  values[injection.metric] = value.number;
  if (!injection.limit) return injection.action != SightAction::metric;
  if (value.number <= *injection.limit) return false;
  hit.violation = violation_text(injection.value->text(), value.number, *injection.limit);
  return true;
}

bool tells(Injection& injection, CallEnvironment& environment, InjectionHit& hit) {
  if (injection.condition) {
    const Truth truth = truth_of(injection.condition->evaluate(environment));
    if (truth == Truth::unknown) ++injection.undecided;
    if (truth != Truth::yes) return false;
    hit.violation = injection.condition->text();
  }
  hit.message = injection.message->fill(environment);
  return true;
}

}  // namespace

std::string violation_text(std::string_view name, double value, double limit) {
  return std::string(name) + " " + number_text(value) + " > " + number_text(limit);
}

std::vector<InjectionHit> run_injections(const SightInjections& injections, CallEnvironment& environment,
                                         std::span<double> values) {
  std::vector<InjectionHit> hits;
  for (const std::shared_ptr<Injection>& injection : injections) {
    if (!injection->enabled) continue;
    InjectionHit hit{injection, {}, {}};
    const bool acts = injection->value ? measure(*injection, environment, values, hit)
                                       : tells(*injection, environment, hit);
    if (!acts) continue;
    ++injection->hits;
    hits.push_back(std::move(hit));
  }
  return hits;
}

}  // namespace rubriscope
