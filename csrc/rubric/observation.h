// The native watcher of one rubric tree: it turns every call of the tree's root into one snapshot record.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "rubriscope/recorder/recorder.h"
#include "rubriscope/rubric/context.h"
#include "rubriscope/rubric/node.h"

namespace rubriscope {

/// A captured action or observation. Borrowed text.
struct Capture {
  static constexpr std::size_t kMaxBytes = 4096;

  std::string_view text;
  std::uint8_t form{0};
  bool present{false};

  /// Cuts the text to kMaxBytes on a character boundary and marks it.
  static Capture cut(std::string_view text, CaptureForm form);
};

/// Writes snapshots of one tree into one recorder.
class Observer {
 public:
  explicit Observer(std::shared_ptr<Recorder> recorder) : recorder_(std::move(recorder)) {}
  virtual ~Observer() = default;

  Recorder& recorder() const { return *recorder_; }

  /// Writes one snapshot. False when the journal has no room now: `wait` on the recorder and try again.
  bool try_publish(const EvalContext& context, const RecordPosition& position, const Capture& action,
                   const Capture& observation, std::string_view metadata_json, std::uint64_t end_tick);

  /// Bytes try_publish() needs.
  static std::size_t record_bytes(const EvalContext& context, const RecordPosition& position,
                                  const Capture& action, const Capture& observation,
                                  std::string_view metadata_json);

 private:
  std::shared_ptr<Recorder> recorder_;
  std::atomic<std::uint64_t> schema_cache_{~std::uint64_t{0}};  // shape id << 32 | schema id
};

/// Everything attached to one observed root.
class RootObservation : public std::enable_shared_from_this<RootObservation> {
 public:
  /// A context for a call of the root, of the tree as it is now; scans again when a node of it has changed.
  EvalContext* open_call(Node& root, EvalContext* parent) {
    if (!is_current()) [[unlikely]] {
      const auto self = shared_from_this();  // the host's code may detach what is attached here
      refresh(root);
      return EvalContext::acquire(shape_, parent);
    }
    return EvalContext::acquire(shape_, parent);
  }
  /// Scans the tree again. Throws ValueError where it has too many nodes.
  void refresh(Node& root);
  void mark_changed() { changes_.fetch_add(1, std::memory_order_release); }

  /// A call of a member from outside the root's call.
  void count_unattributed();

  std::vector<std::shared_ptr<Observer>> observers;

  /// Around a host's loop over the observers, where one of them may detach itself or the last of them: until
  /// the outermost loop ends, all are kept. The host serialises these (Python: the GIL).
  void begin_publishing() { ++publishing_; }
  void end_publishing(Node& root) {
    if (--publishing_ == 0 && !detached_.empty()) drop_detached(root);
  }

 private:
  friend void detach(Node& root, const Observer& observer);
  void drop_detached(Node& root);
  bool is_current() const {
    return scanned_.load(std::memory_order_acquire) == changes_.load(std::memory_order_acquire);
  }

  std::shared_ptr<const TreeShape> shape_;  // never null once an observer is attached
  std::atomic<std::uint64_t> changes_{1};   // of the tree, counted
  std::atomic<std::uint64_t> scanned_{0};   // how many of them shape_ shows
  std::uint32_t publishing_{0};
  std::vector<std::shared_ptr<Observer>> detached_;
};

/// Writes one outcome of a node into every observed call around it; counts it where it belongs to none.
/// `context` is the innermost call, or nullptr.
void record_outcome(const Node& node, EvalContext* context, double value, Status status,
                    std::string_view reason, std::uint64_t start, std::uint64_t end);

/// Counts a call of a node that is part of observed trees, from outside of their calls.
void count_unattributed(const Node& node);

/// A node whose score was recorded has failed after all: its forward hook raised.
void overrule_outcome(const Node& node, EvalContext* context, std::string_view reason);

/// Attaches an observer to a root; the host serialises these with calls of the tree.
void attach(Node& root, std::shared_ptr<Observer> observer);
void detach(Node& root, const Observer& observer);

/// Writes a record of named numbers (recorder.log). Waits for room as the recorder's policy says; false when
/// the record was refused.
bool log_scalars(Recorder& recorder, const std::vector<std::string>& names, const std::vector<double>& values,
                 const RecordPosition& position);

}  // namespace rubriscope
