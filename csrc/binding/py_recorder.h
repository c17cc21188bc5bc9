// What Python adds to a recorder: positions and annotations that are local to a context (contextvars).
#pragma once

#include <Python.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "rubriscope/recorder/recorder.h"
#include "rubriscope/rubric/observation.h"

namespace rubriscope::binding {

struct EnteredPosition;

class PyRecorder {
 public:
  /// Throws std::bad_alloc when Python has no memory.
  explicit PyRecorder(std::shared_ptr<Recorder> recorder);
  ~PyRecorder();
  PyRecorder(const PyRecorder&) = delete;
  PyRecorder& operator=(const PyRecorder&) = delete;

  /// No two of this process have the same, as addresses may; never 0.
  std::uint64_t number() const { return number_; }

  Recorder& core() const { return *recorder_; }
  const std::shared_ptr<Recorder>& shared() const { return recorder_; }

  /// Where the next record of this context stands; takes a step from the counter. The result borrows from a
  /// Position that the context or this object keeps. Holds the GIL.
  RecordPosition take_position();

  /// The position of a log() record: takes no step, so that snapshots keep theirs. Holds the GIL.
  RecordPosition take_log_position(std::optional<std::int64_t> step);

  /// Enters a position for this context; the result is a contextvars token. nullptr with an exception set.
  PyObject* enter_position(std::shared_ptr<Position> position);
  /// The same for the snapshots of a batch, which come in order: each takes the next, the last one stays.
  PyObject* enter_positions(std::vector<std::shared_ptr<Position>> positions);
  /// Restores what was there before enter_position(). False with an exception set.
  bool leave_position(PyObject* token);
  /// A call of this context made no snapshot: the next one is not to stand in its place.
  void skip_position();
  /// How many calls have taken their place since this context's position was entered.
  std::size_t positions_taken();
  /// The context's position, or the recorder's default.
  std::shared_ptr<Position> position();

  /// Annotates the snapshot that is being made, or the next one of this context. False with an exception set.
  bool annotate(PyObject* mapping);
  /// Takes the annotations waiting in this context: a new reference, or nullptr when there are none.
  PyObject* take_waiting_annotations();

 private:
  PyObject* enter(EnteredPosition* held);

  static inline std::atomic<std::uint64_t> made_{0};

  const std::uint64_t number_{++made_};
  std::shared_ptr<Recorder> recorder_;
  PyObject* position_var_;
  PyObject* annotations_var_;
  std::uint64_t positions_entered_{0};
  std::uint64_t annotations_waiting_{0};
  std::shared_ptr<Position> default_position_;
  std::uint64_t default_version_{0};
};

/// The watcher that rs.RubricObserver attaches.
class PyObserver final : public Observer {
 public:
  enum class CaptureMode { none, text, callable };

  PyObserver(std::shared_ptr<PyRecorder> recorder, CaptureMode mode, PyObject* capture, bool raise_errors)
      : Observer(recorder->shared()),
        recorder_(std::move(recorder)),
        mode_(mode),
        capture_(Py_XNewRef(capture)),
        raise_errors_(raise_errors) {}
  ~PyObserver() override;

  PyRecorder& py_recorder() const { return *recorder_; }

  /// Writes one snapshot of a finished call, waiting for room without the GIL. False with an exception set.
  bool publish(EvalContext& context, PyObject* action, PyObject* observation, std::uint64_t end_tick);

  /// The same for a call whose scores are still on a device: everything but them is taken now, and the
  /// snapshot is written when they have arrived. `self` owns this observer.
  bool publish_later(std::shared_ptr<Observer> self, EvalContext& context, PyObject* action,
                     PyObject* observation, std::uint64_t end_tick);
  static PyObject* publish_deferred(PyObject* args);

  /// After publish() gave false: counts and reports the failure and clears it, or keeps it
  /// (on_error="raise"). True when contained.
  bool contain();

  std::atomic<std::uint64_t> snapshots{0};
  std::atomic<std::uint64_t> failures{0};

 private:
  struct Captured;
  struct Prepared;
  struct Deferred;
  bool prepare(EvalContext& context, PyObject* action, PyObject* observation, Prepared& prepared);
  bool write(EvalContext& context, Prepared& prepared, std::uint64_t end_tick);
  bool capture(PyObject* value, Captured& captured);

  std::shared_ptr<PyRecorder> recorder_;
  CaptureMode mode_;
  PyObject* capture_;
  bool raise_errors_;
};

}  // namespace rubriscope::binding
