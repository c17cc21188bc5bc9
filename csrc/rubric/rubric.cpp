#include "rubriscope/rubric/rubric.h"

#include <cxxabi.h>

#include <cmath>
#include <cstdlib>

#include "rubriscope/core/errors.h"
#include "rubriscope/recorder/report.h"
#include "rubriscope/rubric/algorithms.h"

namespace rubriscope {

std::string readable_type_name(const std::type_info& type) {
  int status = 0;
  const std::unique_ptr<char, decltype(&std::free)> name(
      abi::__cxa_demangle(type.name(), nullptr, nullptr, &status), &std::free);
  return status == 0 ? name.get() : type.name();
}

std::string_view Value::text() const {
  if (const auto* const string = get<std::string>()) return *string;
  if (const auto* const view = get<std::string_view>()) return *view;
  if (const auto* const pointer = get<const char*>()) return *pointer;
  CapturedValue captured;
  capture(captured);
  if (captured.form == CaptureForm::text && captured.owned.empty()) return captured.text;  // a char array
  throw TypeError("a rubric expected text and got " + readable_type_name(*type_));
}

void HookHandle::remove() {
  const auto same = [this](const auto& hook) { return hook.first == id_; };
  std::erase_if(rubric_->pre_hooks_, same);
  std::erase_if(rubric_->forward_hooks_, same);
}

std::string Rubric::class_name() const {
  const std::string full = readable_type_name(typeid(*this));
  const std::size_t colon = full.rfind("::");
  return colon == std::string::npos ? full : full.substr(colon + 2);
}

void Rubric::add(std::string_view name, RubricPtr child) {
  if (child == nullptr) throw ValueError("child '" + std::string(name) + "' is null");
  const Node* const replaced = set_child(name, *child);
  if (replaced != nullptr)
    std::erase_if(owned_, [&](const RubricPtr& known) { return known.get() == replaced; });
  owned_.push_back(std::move(child));
}

void Rubric::add_item(std::string_view name, RubricPtr child, double weight) {
  if (child == nullptr) throw ValueError("child '" + std::string(name) + "' is null");
  set_child(name, *child, weight, true);
  owned_.push_back(std::move(child));
}

void Rubric::remove(std::string_view name) {
  const Node* const removed = remove_child(name);
  if (removed == nullptr) {
    throw KeyError(class_name() + " has no child '" + std::string(name) + "'");
  }
  std::erase_if(owned_, [&](const RubricPtr& known) { return known.get() == removed; });
}

HookHandle Rubric::register_forward_pre_hook(PreHook hook) {
  pre_hooks_.emplace_back(next_hook_, std::move(hook));
  return {*this, next_hook_++};
}

HookHandle Rubric::register_forward_hook(ForwardHook hook) {
  forward_hooks_.emplace_back(next_hook_, std::move(hook));
  return {*this, next_hook_++};
}

Score Rubric::operator()(const Value& action, const Value& observation) {
  return Node::observation() != nullptr ? call_observed(action, observation)
                                        : call(action, observation, current_context());
}

Score Rubric::call(const Value& action, const Value& observation, EvalContext* context) {
  const std::uint64_t start = context != nullptr ? context->last_tick : 0;
  const auto end = [&] {
    return kind == NodeKind::leaf || context == nullptr ? ticks() : context->last_tick;
  };
  bool recorded = false;
  try {
    for (const auto& [id, hook] : pre_hooks_) hook(*this, action, observation);
    Score score = forward(action, observation);
    last_score_.store(score.value, std::memory_order_relaxed);
    const bool finite = std::isfinite(score.value);
    if (strict && !finite) {
      throw ValueError(class_name() + " (strict) gave " + std::to_string(score.value) +
                       ", expected a finite number");
    }
    if (finite) {
      record_outcome(*this, context, score.value, Status::scored, {}, start, end());
    } else {
      record_outcome(*this, context, std::numeric_limits<double>::quiet_NaN(), Status::failed,
                     not_finite_reason(score.value), start, end());
    }
    if (!score.explanation.empty()) {
      for (EvalContext* c = context; c != nullptr; c = c->parent()) {
        c->note(*this, ExtraTag::explanation, score.explanation);
      }
    }
    recorded = true;
    for (const auto& [id, hook] : forward_hooks_) hook(*this, action, observation, score);
    return score;
  } catch (const std::exception& error) {
    const std::string reason = readable_type_name(typeid(error)) + ": " + error.what();
    if (recorded) {
      overrule_outcome(*this, context, reason);
    } else {
      record_outcome(*this, context, std::numeric_limits<double>::quiet_NaN(), Status::failed, reason, start,
                     ticks());
    }
    throw;
  }
}

// Publishes one tree's calls for C++ callers.
class RubricObserver::Native final : public Observer {
 public:
  Native(std::shared_ptr<Recorder> recorder, Capture capture)
      : Observer(std::move(recorder)), capture_(capture) {}

  void publish(EvalContext& context, const Value& action, const Value& observation,
               std::uint64_t end_tick) noexcept {
    try {
      CapturedValue described_action, described_observation;
      rubriscope::Capture captured_action, captured_observation;
      if (capture_ == Capture::text) {
        action.capture(described_action);
        observation.capture(described_observation);
        captured_action = rubriscope::Capture::cut(described_action.text, described_action.form);
        captured_observation =
            rubriscope::Capture::cut(described_observation.text, described_observation.form);
      }
      const std::shared_ptr<Position> held = recorder().default_position.load();
      const RecordPosition position = RecordPosition::take(*held);
      while (!try_publish(context, position, captured_action, captured_observation, {}, end_tick)) {
        if (!recorder().wait_for_room(
                record_bytes(context, position, captured_action, captured_observation, {}))) {
          return;  // refused, and counted as dropped
        }
      }
    } catch (const std::exception& error) {
      if (failures.fetch_add(1, std::memory_order_relaxed) == 0) {
        report("warning", std::string("an observer failed and was contained: ") + error.what());
      }
    }
  }

  std::atomic<std::uint64_t> failures{0};

 private:
  Capture capture_;
};

Score Rubric::call_observed(const Value& action, const Value& observation) {
  const std::shared_ptr<RootObservation> attached = observation_;
  EvalContext* const outer = current_context();
  EvalContext* const context = attached->open_call(*this, outer);
  current_context() = context;
  context->last_tick = ticks();
  const auto finish = [&] {
    current_context() = outer;
    context->seal();
    for (const auto& observer : attached->observers) {
      static_cast<RubricObserver::Native&>(*observer).publish(*context, action, observation,
                                                              context->last_tick);
    }
    EvalContext::release(context);
  };
  try {
    Score score = call(action, observation, context);
    finish();
    return score;
  } catch (...) {
    finish();
    throw;
  }
}

namespace {

double combine(const Rubric& rubric, const Value& action, const Value& observation) {
  Combination combination(rubric.kind, rubric.threshold);
  for (const auto& child : rubric.children()) {
    if (!child.item) continue;
    const double score = static_cast<Rubric&>(*child.node)(action, observation);
    if (!combination.add(score, child.weight)) break;
  }
  return combination.score();
}

}  // namespace

Sequential::Sequential(std::vector<RubricPtr> rubrics) {
  kind = NodeKind::sequential;
  for (std::size_t i = 0; i < rubrics.size(); ++i) add_item("rubric_" + std::to_string(i), rubrics[i], 1.0);
}

Score Sequential::forward(const Value& action, const Value& observation) {
  return combine(*this, action, observation);
}

Gate::Gate(RubricPtr rubric, double least) {
  kind = NodeKind::gate;
  threshold = least;
  add_item("rubric", std::move(rubric), 1.0);
}

Score Gate::forward(const Value& action, const Value& observation) {
  return combine(*this, action, observation);
}

WeightedSum::WeightedSum(std::vector<RubricPtr> rubrics, std::vector<double> weights) {
  kind = NodeKind::weighted_sum;
  if (rubrics.size() != weights.size()) {
    throw ValueError("Number of rubrics (" + std::to_string(rubrics.size()) +
                     ") must match number of weights (" + std::to_string(weights.size()) + ")");
  }
  double sum = 0;
  for (const double weight : weights) sum += weight;
  if (!(std::abs(sum - 1.0) <= 1e-6)) throw ValueError("Weights must sum to 1.0, got " + std::to_string(sum));
  for (std::size_t i = 0; i < rubrics.size(); ++i) {
    add_item("rubric_" + std::to_string(i), rubrics[i], weights[i]);
  }
}

Score WeightedSum::forward(const Value& action, const Value& observation) {
  return combine(*this, action, observation);
}

RubricObserver::RubricObserver(RubricPtr root, std::shared_ptr<Recorder> recorder, Capture capture)
    : root_(std::move(root)), observer_(std::make_shared<Native>(std::move(recorder), capture)) {
  attach(*root_, observer_);
}

RubricObserver::~RubricObserver() { detach(*root_, *observer_); }

std::uint64_t RubricObserver::failures() const {
  return static_cast<const Native&>(*observer_).failures.load(std::memory_order_relaxed);
}

}  // namespace rubriscope
