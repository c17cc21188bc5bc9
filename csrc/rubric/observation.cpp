#include "rubriscope/rubric/observation.h"

#include <algorithm>
#include <mutex>

#include "rubriscope/core/errors.h"
#include "rubriscope/recorder/fill.h"

namespace rubriscope {

namespace {

// Around the nodes' memberships, where the host does not serialise; never held while its code runs.
std::mutex g_membership;

void fill_times(RecordHeader& header, std::uint64_t tick) {
  const ClockTimes now = clock_times(tick);
  header.time_ns = now.wall_ns;
  header.monotonic_ns = now.monotonic_ns;
}

}  // namespace

Capture Capture::cut(std::string_view text, CaptureForm form) {
  Capture capture{text, static_cast<std::uint8_t>(form), true};
  if (text.size() > kMaxBytes) {
    std::size_t end = kMaxBytes;
    while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
    capture.text = text.substr(0, end);
    capture.form |= kCaptureCut;
  }
  return capture;
}

std::size_t Observer::record_bytes(const EvalContext& context, const RecordPosition& position,
                                   const Capture& action, const Capture& observation,
                                   std::string_view metadata_json) {
  return sizeof(RecordHeader) + arrays_bytes(context.shape().size()) + extra_bytes(position.episode) +
         (action.present ? extra_bytes(action.text) : 0) +
         (observation.present ? extra_bytes(observation.text) : 0) +
         (metadata_json.empty() ? 0 : extra_bytes(metadata_json)) + context.extras().size();
}

bool Observer::try_publish(const EvalContext& context, const RecordPosition& position, const Capture& action,
                           const Capture& observation, std::string_view metadata_json,
                           std::uint64_t end_tick) {
  const TreeShape& shape = context.shape();
  std::uint64_t cached = schema_cache_.load(std::memory_order_relaxed);
  if (static_cast<std::uint32_t>(cached >> 32) != shape.id()) {
    cached = std::uint64_t{shape.id()} << 32 | recorder_->define(shape.schema());
    schema_cache_.store(cached, std::memory_order_relaxed);
  }
  const std::size_t bytes = record_bytes(context, position, action, observation, metadata_json);
  RecordHeader* header = recorder_->try_reserve(bytes);
  if (header == nullptr) return false;

  const std::uint32_t n = shape.size();
  fill_header(*header, RecordKind::snapshot, n, static_cast<std::uint32_t>(cached), position);
  fill_times(*header, end_tick);
  auto* const scores = reinterpret_cast<double*>(header + 1);
  auto* const durations = reinterpret_cast<std::uint64_t*>(scores + n);
  auto* const statuses = reinterpret_cast<std::uint8_t*>(durations + n);
  std::memset(statuses + (padded(n) >= 8 ? padded(n) - 8 : 0), 0, n != 0 ? 8 : 0);
  context.copy_arrays(scores, durations, statuses);

  std::byte* const extras = reinterpret_cast<std::byte*>(header + 1) + arrays_bytes(n);
  std::byte* at = put_extra(extras, ExtraTag::episode, position.episode);
  if (action.present) at = put_extra(at, ExtraTag::action, action.text, action.form);
  if (observation.present) at = put_extra(at, ExtraTag::observation, observation.text, observation.form);
  if (!metadata_json.empty()) at = put_extra(at, ExtraTag::metadata, metadata_json);
  if (context.extras().size() != 0) {
    std::memcpy(at, context.extras().data(), context.extras().size());
    at += context.extras().size();
  }
  header->extras_bytes = static_cast<std::uint32_t>(at - extras);
  recorder_->commit(header);
  return true;
}

void RootObservation::refresh(Node& root) {
  std::unique_lock lock(g_membership);
  const std::uint64_t seen = changes_.load(std::memory_order_acquire);
  auto fresh = std::make_shared<TreeShape>(root);
  if (fresh->size() > 0xFFFF) {
    throw ValueError("an observed tree can have at most 65535 nodes, this one has " +
                     std::to_string(fresh->size()));
  }
  for (Node* node : fresh->nodes()) {
    const bool known = std::any_of(node->member_of.begin(), node->member_of.end(),
                                   [this](const auto& tree) { return tree.lock().get() == this; });
    if (!known) node->member_of.push_back(weak_from_this());
    node->is_member = true;
  }
  lock.unlock();
  fresh->describe();
  lock.lock();
  if (seen <= scanned_.load(std::memory_order_relaxed)) return;  // another call's scan is as new
  if (shape_ == nullptr || !(*shape_ == *fresh)) shape_ = std::move(fresh);
  scanned_.store(seen, std::memory_order_release);
}

void RootObservation::count_unattributed() {
  for (const auto& observer : observers) {
    observer->recorder().unattributed.fetch_add(1, std::memory_order_relaxed);
  }
}

void record_outcome(const Node& node, EvalContext* context, double value, Status status,
                    std::string_view reason, std::uint64_t start, std::uint64_t end) {
  bool found = false;
  for (EvalContext* c = EvalContext::open(context); c != nullptr; c = c->parent()) {
    const bool in_tree = c->record(node, value, status, start, end);
    c->last_tick = end;
    found |= in_tree;
    if (in_tree && !reason.empty())
      c->note(node, ExtraTag::reason, reason.substr(0, EvalContext::kMaxReasonBytes));
  }
  if (!found) count_unattributed(node);
}

void count_unattributed(const Node& node) {
  if (!node.is_member.load(std::memory_order_relaxed)) return;
  const std::lock_guard lock(g_membership);
  for (const auto& tree : node.member_of) {
    if (const auto observation = tree.lock()) observation->count_unattributed();
  }
}

void overrule_outcome(const Node& node, EvalContext* context, std::string_view reason) {
  for (EvalContext* c = EvalContext::open(context); c != nullptr; c = c->parent()) {
    if (c->overrule(node)) c->note(node, ExtraTag::reason, reason.substr(0, EvalContext::kMaxReasonBytes));
  }
}

void RootObservation::drop_detached(Node& root) {
  std::vector<std::shared_ptr<Observer>> dropped;
  dropped.swap(detached_);
  if (observers.empty()) root.observation_.reset();  // this object's end, unless somebody else holds it
}

void attach(Node& root, std::shared_ptr<Observer> observer) {
  // Attached once its tree is scanned: a call in another thread must not meet a root without a shape, nor two
  // threads that attach the first observer lose one of the two.
  while (true) {
    std::shared_ptr<RootObservation> observation = root.observation_;
    if (observation == nullptr) {
      observation = std::make_shared<RootObservation>();
      observation->refresh(root);
      if (root.observation_ == nullptr) root.observation_ = observation;
    }
    if (root.observation_ == observation) {
      observation->observers.push_back(std::move(observer));
      return;
    }
  }
}

void detach(Node& root, const Observer& observer) {
  if (root.observation_ == nullptr) return;
  RootObservation& observation = *root.observation_;
  const auto at = std::find_if(observation.observers.begin(), observation.observers.end(),
                               [&](const auto& known) { return known.get() == &observer; });
  if (at == observation.observers.end()) return;
  observation.detached_.push_back(std::move(*at));
  observation.observers.erase(at);
  if (observation.publishing_ == 0) observation.drop_detached(root);
}

bool log_scalars(Recorder& recorder, const std::vector<std::string>& names, const std::vector<double>& values,
                 const RecordPosition& position) {
  if (names.size() != values.size() || names.empty() || names.size() > 0xFFFF) {
    throw ValueError("log() takes 1 to 65535 names with a value each, got " + std::to_string(names.size()) +
                     " names and " + std::to_string(values.size()) + " values");
  }
  Schema schema;
  schema.kind = Schema::Kind::scalars;
  for (const auto& name : names) schema.slots.push_back({{name}, "", ""});
  const std::uint32_t schema_id = recorder.define(std::move(schema));

  const std::size_t n = names.size();
  const std::size_t bytes = sizeof(RecordHeader) + arrays_bytes(n) + extra_bytes(position.episode);
  RecordHeader* header = recorder.try_reserve(bytes);
  while (header == nullptr) {
    if (!recorder.wait_for_room(bytes)) return false;
    header = recorder.try_reserve(bytes);
  }
  fill_header(*header, RecordKind::scalars, n, schema_id, position);
  fill_times(*header, ticks());
  auto* const scores = reinterpret_cast<double*>(header + 1);
  auto* const durations = reinterpret_cast<std::uint64_t*>(scores + n);
  auto* const statuses = reinterpret_cast<std::uint8_t*>(durations + n);
  std::memset(durations, 0, n * sizeof *durations + padded(n));
  for (std::size_t i = 0; i < n; ++i) {
    const bool finite = std::isfinite(values[i]);
    scores[i] = finite ? values[i] : std::numeric_limits<double>::quiet_NaN();
    statuses[i] = static_cast<std::uint8_t>(finite ? Status::scored : Status::failed);
  }
  std::byte* const extras = reinterpret_cast<std::byte*>(header + 1) + arrays_bytes(n);
  header->extras_bytes =
      static_cast<std::uint32_t>(put_extra(extras, ExtraTag::episode, position.episode) - extras);
  recorder.commit(header);
  return true;
}

}  // namespace rubriscope
