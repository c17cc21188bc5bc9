#include "rubriscope/rubric/context.h"

#include <charconv>

namespace rubriscope {

__thread EvalContext* t_current_context = nullptr;

namespace {
__attribute__((tls_model("initial-exec"))) thread_local EvalContext* t_free = nullptr;
}  // namespace

// Frees the pool of a thread that ends. Touched only where a context is allocated.
struct EvalContextPool {
  ~EvalContextPool() {
    while (t_free != nullptr) {
      EvalContext* next = t_free->next_free_;
      delete t_free;
      t_free = next;
    }
  }
  void touch() {}
};

namespace {
thread_local EvalContextPool t_pool;
}  // namespace

EvalContext* EvalContext::acquire(const std::shared_ptr<const TreeShape>& shape, EvalContext* parent) {
  EvalContext* context = t_free;
  if (context != nullptr) {
    t_free = context->next_free_;
  } else {
    t_pool.touch();
    context = new EvalContext;
  }
  context->reset(shape, parent);
  return context;
}

void EvalContext::release(EvalContext* context) {
  if (context->users_ == 0) return recycle(context);
  context->closed_ = true;
  context->alone_ = false;
}

void EvalContext::recycle(EvalContext* context) {
  EvalContext* const parent = context->parent_;
  context->parent_ = nullptr;
  context->next_free_ = t_free;
  t_free = context;
  if (parent != nullptr) drop(parent);
}

void EvalContext::reset(const std::shared_ptr<const TreeShape>& shape, EvalContext* parent) {
  if (shape_ != shape) shape_ = shape;  // mostly the same tree again: no counting of references
  parent_ = parent;
  if (parent != nullptr) parent->hold();
  closed_ = false;
  alone_ = parent == nullptr;
  const std::size_t n = shape_->size();
  if (scores_.size() < n) {
    scores_.resize(n);
    durations_.resize(n);
    statuses_.resize(n);
  }
  std::fill_n(statuses_.begin(), n, Status::skipped);
  repeats_.clear();
  extras_.clear();
  host_handle = nullptr;
  host_annotations = nullptr;
  host_pending = nullptr;
}

std::uint64_t EvalContext::repeated(std::uint32_t slot) {
  for (auto& [known, calls] : repeats_) {
    if (known == slot) {
      ++calls;
      return durations_[slot];
    }
  }
  repeats_.emplace_back(slot, 2);
  return durations_[slot];
}

void EvalContext::note(const Node& node, ExtraTag tag, std::string_view text) {
  const std::uint32_t slot = shape_->slot_of(node);
  if (slot == TreeShape::kNotInTree) return;
  extras_.add(tag, static_cast<std::uint16_t>(slot), text);
}

EvalContext* EvalContext::copy(const EvalContext& context) {
  EvalContext* const made = acquire(context.shape_, nullptr);
  const std::size_t n = context.shape_->size();
  std::copy_n(context.scores_.begin(), n, made->scores_.begin());
  std::copy_n(context.durations_.begin(), n, made->durations_.begin());
  std::copy_n(context.statuses_.begin(), n, made->statuses_.begin());
  made->extras_ = context.extras_;
  made->last_tick = context.last_tick;
  return made;
}

void EvalContext::complete(std::uint32_t slot, double value, std::string_view failure_reason) {
  if (failure_reason.empty() && !std::isfinite(value)) failure_reason = not_finite_reason(value);
  const bool scored = failure_reason.empty();
  scores_[slot] = scored ? value : std::numeric_limits<double>::quiet_NaN();
  statuses_[slot] = scored ? Status::scored : Status::failed;
  if (!scored) extras_.add(ExtraTag::reason, static_cast<std::uint16_t>(slot), failure_reason);
}

void EvalContext::seal() {
  for (const auto& [slot, calls] : repeats_) {
    char digits[12];
    const auto end = std::to_chars(digits, digits + sizeof digits, calls).ptr;
    extras_.add(ExtraTag::calls, static_cast<std::uint16_t>(slot),
                {digits, static_cast<std::size_t>(end - digits)});
  }
}

std::string_view not_finite_reason(double value) {
  if (std::isnan(value)) return "score is nan, not a finite number";
  return value > 0 ? "score is inf, not a finite number" : "score is -inf, not a finite number";
}

}  // namespace rubriscope
