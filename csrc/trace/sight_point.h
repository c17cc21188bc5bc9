// A sight point: a named place of a program whose calls are observed. What it is called, what it measures,
// the limits of its metrics, and its running figures. No Python here; the binding's GIL guards it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "rubriscope/core/record.h"
#include "rubriscope/core/schema.h"
#include "rubriscope/trace/sight_cost.h"
#include "rubriscope/trace/sight_sketch.h"

namespace rubriscope {

/// What a sight point does where a limit is passed.
enum class SightAction { metric, log, alert, snapshot, fail_closed };

/// "log", "metric", "alert", "snapshot" or "fail_closed". Throws ValueError.
SightAction sight_action_of_name(std::string_view name);

/// A metric above this is a violation.
struct SightLimit {
  std::size_t metric;
  double limit;
};

/// The texts a sight point's observation may carry, in the order of its schema's fields.
enum class SightField : std::uint16_t { violation, error, arguments, result, message, trace_id, parent_id };

struct Injection;
using SightInjections = std::vector<std::shared_ptr<Injection>>;

class SightPoint {
 public:
  static constexpr std::size_t kMaxMetrics = 256;

  /// Throws ValueError for a metric named twice.
  SightPoint(std::string name, std::string modality, std::vector<std::string> metrics, SightAction action);

  const std::string& name() const { return name_; }
  const std::string& modality() const { return modality_; }
  const std::vector<std::string>& metrics() const { return metrics_; }
  SightAction action() const { return action_; }
  const std::vector<SightLimit>& limits() const { return limits_; }

  /// The place of a metric, which is added when the point has none of this name yet. Throws ValueError past
  /// kMaxMetrics.
  std::size_t metric(std::string_view name);

  /// A violation is a value of the metric above `limit`. Throws ValueError when the limit is not finite.
  void add_limit(std::string_view metric, double limit);

  /// Adds the metrics token_count and cost and, where the price of input and output differs, input_tokens and
  /// output_tokens. Throws ValueError when a price is not finite or negative, or `per` is not above 0.
  void set_price(const TokenPrice& price);
  const TokenPrice* price() const { return price_ ? &*price_ : nullptr; }

  /// Whether its calls are added to the costs: it has a price, or a metric that counts tokens.
  bool billed() const { return billed_; }

  /// Throws ValueError when the value of this metric cannot be: tokens that are no whole number, or a cost in
  /// currency that is not finite.
  void check(std::size_t metric, double value) const;

  /// Whether each call must be looked at after it ended: it has limits, or acts on every call.
  bool acts() const { return !limits_.empty() || (action_ != SightAction::metric); }

  /// Counts one call that has ended.
  void count(std::uint64_t duration_ns, Outcome outcome) {
    sketch.add(duration_ns);
    total_ns += duration_ns;
    last_ns = duration_ns;
    if (outcome != Outcome::success) ++errors;
  }

  /// The event schema of its observations.
  Schema schema() const;

  bool enabled{true};
  // What was injected at run time; replaced as a whole, so that a call that ends keeps what it began with.
  std::shared_ptr<const SightInjections> injections{};
  std::uint64_t total_ns{0};
  std::uint64_t last_ns{0};
  std::uint64_t errors{0};
  SightSketch sketch;
  // Where observations go: the id of schema() at a recorder, good while the metrics are this many.
  std::uint64_t recorder{0};
  std::uint32_t schema_id{0};
  std::size_t schema_metrics{0};
  // The places of what is measured without being told, kMaxMetrics where it was not asked for.
  std::size_t latency_slot{kMaxMetrics};
  std::size_t cpu_slot{kMaxMetrics};
  // The places of tokens and their cost, kMaxMetrics where nobody gave any yet.
  std::size_t token_slot{kMaxMetrics};
  std::size_t input_slot{kMaxMetrics};
  std::size_t output_slot{kMaxMetrics};
  std::size_t cost_slot{kMaxMetrics};
  CostSum costs;

 private:
  std::string name_;
  std::string modality_;
  std::vector<std::string> metrics_;
  std::vector<SightLimit> limits_;
  std::optional<TokenPrice> price_;
  bool billed_{false};
  SightAction action_;
};

}  // namespace rubriscope
