// What one call of an observed root has found so far: one entry per node. Contexts come from a pool, so a
// call in the steady state allocates nothing.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <string_view>
#include <vector>

#include "rubriscope/core/clock.h"
#include "rubriscope/core/record.h"
#include "rubriscope/rubric/node.h"

namespace rubriscope {

/// Bytes in the record's extras layout, ready to be copied behind the arrays.
class ExtrasBuffer {
 public:
  void add(ExtraTag tag, std::uint16_t slot, std::string_view text, std::uint8_t form = 0) {
    const ExtraHeader header{tag, form, slot, static_cast<std::uint32_t>(text.size())};
    const std::size_t at = bytes_.size();
    bytes_.resize(at + sizeof header + padded(text.size()));
    std::memcpy(bytes_.data() + at, &header, sizeof header);
    if (!text.empty()) std::memcpy(bytes_.data() + at + sizeof header, text.data(), text.size());
  }
  void clear() { bytes_.clear(); }
  const char* data() const { return bytes_.data(); }
  std::size_t size() const { return bytes_.size(); }

 private:
  std::vector<char> bytes_;
};

class EvalContext {
 public:
  static constexpr std::size_t kMaxReasonBytes = 1024;

  /// From this thread's pool.
  static EvalContext* acquire(const std::shared_ptr<const TreeShape>& shape, EvalContext* parent);
  /// A context of its own with the same findings, for a snapshot that is written later.
  static EvalContext* copy(const EvalContext& context);
  /// Back to this thread's pool, at once or when nothing refers to it any more: a task or a thread that a
  /// call did not wait for may outlive it, and what it then records must reach nobody's snapshot.
  static void release(EvalContext* context);
  /// Keeps a context over code that might end its call.
  void hold() { ++users_; }
  static void drop(EvalContext* context) {
    if (--context->users_ == 0 && context->closed_) recycle(context);
  }

  const TreeShape& shape() const { return *shape_; }
  /// The observed call around this one that has not ended, or nullptr.
  EvalContext* parent() const {
    EvalContext* parent = parent_;
    while (parent != nullptr && parent->closed_) parent = parent->parent_;
    return parent;
  }
  /// `context` itself where its call has not ended, else the call around it.
  static EvalContext* open(EvalContext* context) {
    return context != nullptr && context->closed_ ? context->parent() : context;
  }
  /// Not ended, and inside of no other observed call.
  bool is_alone() const { return alone_; }

  /// Records a score. Durations run from `start` to `end`; both are ticks(). False: not a node of this tree.
  bool record(const Node& node, double value, Status status, std::uint64_t start, std::uint64_t end) {
    const std::uint32_t slot = shape_->slot_of(node);
    if (slot == TreeShape::kNotInTree) return false;
    durations_[slot] = end - start + (statuses_[slot] == Status::skipped ? 0 : repeated(slot));
    statuses_[slot] = status;
    scores_[slot] = value;
    return true;
  }

  /// A call that was recorded as scored has failed after all, in a hook: one call still, of the same
  /// duration.
  bool overrule(const Node& node) {
    const std::uint32_t slot = shape_->slot_of(node);
    if (slot == TreeShape::kNotInTree) return false;
    statuses_[slot] = Status::failed;
    scores_[slot] = std::numeric_limits<double>::quiet_NaN();
    return true;
  }

  /// Adds to a node's explanation, reason or score metadata; ignored for a node of another tree.
  void note(const Node& node, ExtraTag tag, std::string_view text);

  /// Copies the arrays in record layout, durations in ns. A slot that was skipped holds what an earlier call
  /// left there until now.
  void copy_arrays(double* scores, std::uint64_t* durations_ns, std::uint8_t* statuses) const {
    const std::size_t n = shape_->size();
    std::memcpy(statuses, statuses_.data(), n);
    ticks_to_ns(durations_.data(), durations_ns, n);
    for (std::size_t i = 0; i < n; ++i) {
      const bool skipped = statuses_[i] == Status::skipped;
      scores[i] = skipped ? std::numeric_limits<double>::quiet_NaN() : scores_[i];
      durations_ns[i] = skipped ? 0 : durations_ns[i];
    }
  }

  /// A pending score has arrived.
  void complete(std::uint32_t slot, double value, std::string_view failure_reason);

  /// Writes call counts above one into the extras. Called once, before the snapshot is written.
  void seal();
  const ExtrasBuffer& extras() const { return extras_; }
  ExtrasBuffer& extras() { return extras_; }

  std::uint64_t last_tick{0};  ///< where the next node's time starts
  /// The binding's own data for this call, owned by it.
  void* host_handle{nullptr};       ///< Python: the handle shared with coroutines
  void* host_annotations{nullptr};  ///< Python: a dict
  void* host_pending{nullptr};      ///< Python: a list of (slot, tensor) whose numbers are still on a device

 private:
  friend struct EvalContextPool;
  std::uint64_t repeated(std::uint32_t slot);
  void reset(const std::shared_ptr<const TreeShape>& shape, EvalContext* parent);
  static void recycle(EvalContext* context);

  std::shared_ptr<const TreeShape> shape_;
  EvalContext* parent_{nullptr};
  std::uint32_t users_{0};  // contexts opened inside this one, and holds
  bool closed_{false};
  bool alone_{true};
  EvalContext* next_free_{nullptr};
  std::vector<double> scores_;
  std::vector<std::uint64_t> durations_;
  std::vector<Status> statuses_;
  std::vector<std::pair<std::uint32_t, std::uint32_t>> repeats_;  // slot, calls
  ExtrasBuffer extras_;
};

/// The observed call that this thread is in, innermost first; nullptr outside of one. A bare pointer in
/// initial-exec TLS: a larger thread-local there makes dlopen fail, and any other model costs a call to read.
extern __thread EvalContext* t_current_context __attribute__((tls_model("initial-exec")));

inline EvalContext*& current_context() { return t_current_context; }

/// A reason text for a score that is not a finite number.
std::string_view not_finite_reason(double value);

}  // namespace rubriscope
