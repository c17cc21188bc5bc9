// Rubrics in C++: the same tree, containers, hooks and observers as in Python, without Python and torch.
//
//   struct Correct : rubriscope::Rubric {
//     rubriscope::Score forward(const Value& action, const Value& observation) override {
//       return action.as<int>() == observation.as<int>() ? 1.0 : 0.0;
//     }
//   };
//   auto root = std::make_shared<rubriscope::WeightedSum>(…);
//   double reward = (*root)(answer, label);
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "rubriscope/rubric/context.h"
#include "rubriscope/rubric/node.h"
#include "rubriscope/rubric/observation.h"
#include "rubriscope/rubric/value.h"

namespace rubriscope {

/// A score and, optionally, why it is what it is.
struct Score {
  Score(double number) : value(number) {}  // NOLINT(google-explicit-constructor): a number is a score
  Score(double number, std::string why) : value(number), explanation(std::move(why)) {}
  operator double() const { return value; }  // NOLINT(google-explicit-constructor)

  double value;
  std::string explanation;
};

class Rubric;
using RubricPtr = std::shared_ptr<Rubric>;

/// Takes a hook off again. Must not outlive the rubric.
class HookHandle {
 public:
  HookHandle(Rubric& rubric, std::uint64_t id) : rubric_(&rubric), id_(id) {}
  void remove();

 private:
  Rubric* rubric_;
  std::uint64_t id_;
};

/// Calls may come from several threads at once; changes of the tree and its hooks may not run beside calls.
class Rubric : public Node {
 public:
  using PreHook = std::function<void(Rubric&, const Value& action, const Value& observation)>;
  using ForwardHook =
      std::function<void(Rubric&, const Value& action, const Value& observation, const Score& score)>;

  /// Scores, with hooks and observation. What forward() and hooks throw reaches the caller.
  Score operator()(const Value& action, const Value& observation);

  /// forward() alone: no hooks, nothing recorded.
  Score evaluate(const Value& action, const Value& observation) { return forward(action, observation); }

  /// The class's name without its namespaces.
  std::string class_name() const override;

  /// Registers a child under a name. Throws ValueError for a bad name or a cycle.
  void add(std::string_view name, RubricPtr child);
  /// Unregisters. Throws KeyError when there is none of that name.
  void remove(std::string_view name);
  /// The rubric at a dotted path. Throws KeyError that names what is missing.
  Rubric& get_rubric(std::string_view path) { return static_cast<Rubric&>(at_path(path)); }

  HookHandle register_forward_pre_hook(PreHook hook);
  HookHandle register_forward_hook(ForwardHook hook);

  /// What the last call gave; NaN before the first.
  double last_score() const { return last_score_.load(std::memory_order_relaxed); }

 protected:
  virtual Score forward(const Value& action, const Value& observation) = 0;
  void add_item(std::string_view name, RubricPtr child, double weight);

 private:
  friend class HookHandle;
  Score call(const Value& action, const Value& observation, EvalContext* context);
  Score call_observed(const Value& action, const Value& observation);

  std::vector<RubricPtr> owned_;  // parallel to children()
  std::vector<std::pair<std::uint64_t, PreHook>> pre_hooks_;
  std::vector<std::pair<std::uint64_t, ForwardHook>> forward_hooks_;
  std::uint64_t next_hook_{1};
  std::atomic<double> last_score_{std::numeric_limits<double>::quiet_NaN()};
};

/// Runs rubrics in order and gives the last score; stops and gives 0 at a score of exactly 0.
class Sequential : public Rubric {
 public:
  explicit Sequential(std::vector<RubricPtr> rubrics);

 protected:
  Score forward(const Value& action, const Value& observation) override;
};

/// Gives the child's score where it is finite and at least the threshold, else 0.
class Gate : public Rubric {
 public:
  explicit Gate(RubricPtr rubric, double threshold = 1.0);

 protected:
  Score forward(const Value& action, const Value& observation) override;
};

/// Gives Σ weight × score; a weight of 0 makes a child a metric that adds exactly 0.
class WeightedSum : public Rubric {
 public:
  /// Throws ValueError unless there is a weight for each rubric and they sum to 1 within 1e-6.
  WeightedSum(std::vector<RubricPtr> rubrics, std::vector<double> weights);

 protected:
  Score forward(const Value& action, const Value& observation) override;
};

/// Watches a rubric while it lives: one snapshot per call of the root.
class RubricObserver {
 public:
  enum class Capture { none, text };

  RubricObserver(RubricPtr root, std::shared_ptr<Recorder> recorder, Capture capture = Capture::text);
  ~RubricObserver();
  RubricObserver(const RubricObserver&) = delete;
  RubricObserver& operator=(const RubricObserver&) = delete;

  Recorder& recorder() const { return observer_->recorder(); }
  /// Failures of the observer that were contained: they never reach the caller of the rubric.
  std::uint64_t failures() const;

 private:
  class Native;
  friend class Rubric;

  RubricPtr root_;
  std::shared_ptr<Observer> observer_;
};

}  // namespace rubriscope
