// Publishing a finished call: captures, position, annotations, and the hand-over to the journal.
#include "rubriscope/binding/publish.h"

#include <charconv>

#include "rubriscope/binding/async_call.h"
#include "rubriscope/binding/py_names.h"
#include "rubriscope/binding/py_recorder.h"
#include "rubriscope/recorder/report.h"

namespace rubriscope::binding {

/// What a context was entered with: a position, or one after the other of a batch.
struct EnteredPosition {
  std::shared_ptr<Position> current;
  std::vector<std::shared_ptr<Position>> all{};  // of a batch; kept, for records borrow from those before
  std::size_t taken{0};

  void advance() {
    if (++taken < all.size()) current = all[taken];
  }
};

namespace {

constexpr const char* kPositionCapsule = "rubriscope.Position";

EnteredPosition* position_in(PyObject* capsule) {
  return static_cast<EnteredPosition*>(PyCapsule_GetPointer(capsule, kPositionCapsule));
}

void free_position(PyObject* capsule) { delete position_in(capsule); }

// The value of a ContextVar, a borrowed reference (the context keeps it), or nullptr.
PyObject* borrowed_value(PyObject* var) {
  PyObject* value = nullptr;
  if (PyContextVar_Get(var, Py_None, &value) != 0) {
    PyErr_Clear();
    return nullptr;
  }
  Py_DECREF(value);
  return value == Py_None ? nullptr : value;
}

}  // namespace

// ---- PyRecorder

PyRecorder::PyRecorder(std::shared_ptr<Recorder> recorder)
    : recorder_(std::move(recorder)),
      position_var_(PyContextVar_New("rubriscope_position", nullptr)),
      annotations_var_(PyContextVar_New("rubriscope_annotations", nullptr)),
      default_position_(recorder_->default_position.load()),
      default_version_(recorder_->default_position.version()) {
  if (position_var_ == nullptr || annotations_var_ == nullptr) throw std::bad_alloc();
}

PyRecorder::~PyRecorder() {
  if (Py_IsInitialized() == 0) return;
  const PyGILState_STATE gil = PyGILState_Ensure();
  Py_XDECREF(position_var_);
  Py_XDECREF(annotations_var_);
  PyGILState_Release(gil);
}

RecordPosition PyRecorder::take_position() {
  if (recorder_->default_position.version() != default_version_) {
    default_version_ = recorder_->default_position.version();
    default_position_ = recorder_->default_position.load();
  }
  Position& fallback = *default_position_;
  if (positions_entered_ == 0) return RecordPosition::take(fallback);
  PyObject* const capsule = borrowed_value(position_var_);
  if (capsule == nullptr) return RecordPosition::take(fallback);
  EnteredPosition& entered = *position_in(capsule);
  Position& own = *entered.current;
  entered.advance();
  // What the context does not set, the recorder's default does.
  RecordPosition position;
  position.episode = own.episode();
  const std::int64_t default_step = fallback.step.load(std::memory_order_relaxed);
  position.step =
      own.step.load(std::memory_order_relaxed) == Position::kAutomatic && default_step != Position::kAutomatic
          ? default_step
          : own.take_step();
  position.group = own.group.load(std::memory_order_relaxed);
  if (position.group == kNoGroup) position.group = fallback.group.load(std::memory_order_relaxed);
  position.sample = own.sample.load(std::memory_order_relaxed);
  if (position.sample == kNoSample) position.sample = fallback.sample.load(std::memory_order_relaxed);
  return position;
}

void PyRecorder::skip_position() {
  PyObject* const capsule = positions_entered_ != 0 ? borrowed_value(position_var_) : nullptr;
  if (capsule != nullptr) position_in(capsule)->advance();
}

std::size_t PyRecorder::positions_taken() {
  PyObject* const capsule = positions_entered_ != 0 ? borrowed_value(position_var_) : nullptr;
  return capsule != nullptr ? position_in(capsule)->taken : 0;
}

RecordPosition PyRecorder::take_log_position(std::optional<std::int64_t> step) {
  const std::shared_ptr<Position> own = position();
  const std::int64_t default_step = recorder_->default_position->step.load(std::memory_order_relaxed);
  std::int64_t taken = own->step.load(std::memory_order_relaxed);
  if (taken == Position::kAutomatic) taken = default_step;
  if (taken == Position::kAutomatic) taken = own->next_step.load(std::memory_order_relaxed);
  return {own->episode(), step.value_or(taken), kNoGroup, kNoSample};
}

PyObject* PyRecorder::enter_position(std::shared_ptr<Position> position) {
  return enter(new EnteredPosition{std::move(position)});
}

PyObject* PyRecorder::enter_positions(std::vector<std::shared_ptr<Position>> positions) {
  std::shared_ptr<Position> first = positions.front();
  return enter(new EnteredPosition{std::move(first), std::move(positions)});
}

PyObject* PyRecorder::enter(EnteredPosition* held) {
  PyObject* const capsule = PyCapsule_New(held, kPositionCapsule, free_position);
  if (capsule == nullptr) {
    delete held;
    return nullptr;
  }
  PyObject* const token = PyContextVar_Set(position_var_, capsule);
  Py_DECREF(capsule);
  if (token != nullptr) ++positions_entered_;
  return token;
}

bool PyRecorder::leave_position(PyObject* token) {
  // positions_entered_ is not taken back: another task may still hold a copy of the context.
  return PyContextVar_Reset(position_var_, token) == 0;
}

std::shared_ptr<Position> PyRecorder::position() {
  PyObject* const capsule = positions_entered_ != 0 ? borrowed_value(position_var_) : nullptr;
  return capsule != nullptr ? position_in(capsule)->current : recorder_->default_position.load();
}

bool PyRecorder::annotate(PyObject* mapping) {
  for (EvalContext* context = EvalContext::open(active_context()); context != nullptr;
       context = context->parent()) {
    const auto& observation = context->shape().nodes().front()->observation_;
    if (observation == nullptr) continue;
    for (const auto& observer : observation->observers) {
      if (&observer->recorder() != recorder_.get()) continue;
      if (context->host_annotations == nullptr) context->host_annotations = PyDict_New();
      auto* const annotations = static_cast<PyObject*>(context->host_annotations);
      return annotations != nullptr && PyDict_Update(annotations, mapping) == 0;
    }
  }
  PyObject* const waiting = borrowed_value(annotations_var_);
  PyObject* const merged = waiting != nullptr ? PyDict_Copy(waiting) : PyDict_New();
  if (merged == nullptr || PyDict_Update(merged, mapping) != 0) {
    Py_XDECREF(merged);
    return false;
  }
  PyObject* const token = PyContextVar_Set(annotations_var_, merged);
  Py_DECREF(merged);
  if (token == nullptr) return false;
  Py_DECREF(token);
  ++annotations_waiting_;
  return true;
}

PyObject* PyRecorder::take_waiting_annotations() {
  if (annotations_waiting_ == 0) return nullptr;
  PyObject* const waiting = borrowed_value(annotations_var_);
  if (waiting == nullptr) return nullptr;
  Py_INCREF(waiting);
  PyObject* const token = PyContextVar_Set(annotations_var_, Py_None);
  Py_XDECREF(token);
  if (token == nullptr) PyErr_Clear();
  return waiting;
}

// ---- PyObserver

struct PyObserver::Captured {
  ~Captured() { Py_XDECREF(keep); }
  Capture capture;
  PyObject* keep{nullptr};  // what capture.text borrows from
  char digits[32];
};

// Everything of a snapshot but its scores, as it was when the call ended.
struct PyObserver::Prepared {
  Prepared() = default;
  Prepared(const Prepared&) = delete;
  Prepared& operator=(const Prepared&) = delete;
  ~Prepared() { Py_XDECREF(json); }

  /// Lets go of what may change once the GIL is given away.
  void own_position() {
    episode.assign(position.episode);
    position.episode = episode;
  }

  Captured action, observation;
  PyObject* json{nullptr};  // what metadata borrows from
  std::string_view metadata;
  RecordPosition position{};
  std::string episode;
};

PyObserver::~PyObserver() {
  if (capture_ == nullptr || Py_IsInitialized() == 0) return;
  const PyGILState_STATE gil = PyGILState_Ensure();
  Py_DECREF(capture_);
  PyGILState_Release(gil);
}

bool PyObserver::capture(PyObject* value, Captured& captured) {
  const std::uint64_t begin = mode_ == CaptureMode::callable || !PyUnicode_CheckExact(value) ? ticks() : 0;
  if (mode_ == CaptureMode::callable) {
    captured.keep = PyObject_CallOneArg(capture_, value);
    if (captured.keep == nullptr) return false;
    value = captured.keep;
    if (value == Py_None) return true;
  }
  Py_ssize_t size = 0;
  if (PyFloat_CheckExact(value)) {
    const double number = PyFloat_AS_DOUBLE(value);
    const auto end = std::to_chars(captured.digits, captured.digits + sizeof captured.digits, number).ptr;
    captured.capture = {{captured.digits, static_cast<std::size_t>(end - captured.digits)},
                        static_cast<std::uint8_t>(CaptureForm::real),
                        true};
    return true;
  }
  CaptureForm form = CaptureForm::text;
  if (!PyUnicode_Check(value)) {
    form = PyLong_CheckExact(value) ? CaptureForm::integer : CaptureForm::repr;
    static PyObject* function = nullptr;
    PyObject* const describe = import_once(function, "rubriscope._details", "describe");
    PyObject* const text = describe != nullptr ? PyObject_CallOneArg(describe, value) : nullptr;
    if (text == nullptr) return false;
    Py_XDECREF(captured.keep);
    captured.keep = text;
    value = text;
  }
  const char* utf8 = PyUnicode_AsUTF8AndSize(value, &size);
  if (utf8 == nullptr) {
    if (!PyErr_ExceptionMatches(PyExc_UnicodeEncodeError)) return false;
    PyErr_Clear();  // lone surrogates: keep what can be kept
    PyObject* const bytes = PyUnicode_AsEncodedString(value, "utf-8", "backslashreplace");
    if (bytes == nullptr) return false;
    Py_XDECREF(captured.keep);
    captured.keep = bytes;
    utf8 = PyBytes_AS_STRING(bytes);
    size = PyBytes_GET_SIZE(bytes);
  }
  captured.capture = Capture::cut({utf8, static_cast<std::size_t>(size)}, form);
  if (begin != 0) {
    recorder().capture_ns.fetch_add(ticks_to_ns(ticks() - begin), std::memory_order_relaxed);
  }
  return true;
}

bool PyObserver::prepare(EvalContext& context, PyObject* action, PyObject* observation, Prepared& prepared) {
  if (mode_ != CaptureMode::none &&
      !(capture(action, prepared.action) && capture(observation, prepared.observation))) {
    recorder_->skip_position();
    return false;
  }
  PyObject* const waiting = recorder_->take_waiting_annotations();
  if (waiting != nullptr || context.host_annotations != nullptr) {
    static PyObject* function = nullptr;
    PyObject* const to_json = import_once(function, "rubriscope._details", "annotations_json");
    PyObject* const inside = static_cast<PyObject*>(context.host_annotations);
    prepared.json = to_json == nullptr
                        ? nullptr
                        : PyObject_CallFunctionObjArgs(to_json, waiting != nullptr ? waiting : Py_None,
                                                       inside != nullptr ? inside : Py_None, nullptr);
    Py_XDECREF(waiting);
    Py_ssize_t size = 0;
    const char* const utf8 =
        prepared.json != nullptr ? PyUnicode_AsUTF8AndSize(prepared.json, &size) : nullptr;
    if (utf8 == nullptr) return false;
    prepared.metadata = {utf8, static_cast<std::size_t>(size)};
  }
  prepared.position = recorder_->take_position();
  return true;
}

bool PyObserver::publish(EvalContext& context, PyObject* action, PyObject* observation,
                         std::uint64_t end_tick) {
  Prepared prepared;
  return prepare(context, action, observation, prepared) && write(context, prepared, end_tick);
}

bool PyObserver::write(EvalContext& context, Prepared& prepared, std::uint64_t end_tick) {
  const Capture& action = prepared.action.capture;
  const Capture& observation = prepared.observation.capture;
  bool written = false;
  try {
    written = try_publish(context, prepared.position, action, observation, prepared.metadata, end_tick);
    if (!written) {
      // Waiting gives the GIL away: what the position borrows must outlive other threads' changes.
      prepared.own_position();
      const std::size_t bytes =
          record_bytes(context, prepared.position, action, observation, prepared.metadata);
      while (!written) {
        bool room = false;
        Py_BEGIN_ALLOW_THREADS;
        room = recorder().wait_for_room(bytes);
        Py_END_ALLOW_THREADS;
        if (!room) break;  // refused, and counted as dropped
        written = try_publish(context, prepared.position, action, observation, prepared.metadata, end_tick);
      }
    }
  } catch (...) {
    raise_current_exception();
    return false;
  }
  if (written) snapshots.fetch_add(1, std::memory_order_relaxed);
  return true;
}

bool PyObserver::contain() {
  failures.fetch_add(1, std::memory_order_relaxed);
  if (raise_errors_) return false;
  PyObject *type, *value, *traceback;
  PyErr_Fetch(&type, &value, &traceback);
  PyErr_NormalizeException(&type, &value, &traceback);
  if (failures.load(std::memory_order_relaxed) == 1) {
    PyObject* const text = value != nullptr ? PyObject_Repr(value) : nullptr;
    const char* const utf8 = text != nullptr ? PyUnicode_AsUTF8(text) : nullptr;
    report("warning", std::string("an observer failed and was contained (further failures are counted in "
                                  "RubricObserver.failures): ") +
                          (utf8 != nullptr ? utf8 : "unknown error"));
    Py_XDECREF(text);
    PyErr_Clear();
  }
  Py_XDECREF(type);
  Py_XDECREF(value);
  Py_XDECREF(traceback);
  return true;
}

// ---- Publishing

bool publish_call(PyNode& root, EvalContext& context, PyObject* action, PyObject* observation) {
  RootObservation* const attached = root.observation();
  if (attached == nullptr) return true;
  attached->begin_publishing();
  const std::uint64_t end_tick = context.last_tick;
  context.seal();
  PyObject *type = nullptr, *value = nullptr, *traceback = nullptr;
  if (PyErr_Occurred() != nullptr) PyErr_Fetch(&type, &value, &traceback);
  bool ok = true;
  for (std::size_t i = 0; i < attached->observers.size(); ++i) {
    // An observer that detaches meanwhile is kept until the loop ends, but not its place in the list.
    auto& watcher = static_cast<PyObserver&>(*attached->observers[i]);
    const bool published =
        context.host_pending != nullptr
            ? watcher.publish_later(attached->observers[i], context, action, observation, end_tick)
            : watcher.publish(context, action, observation, end_tick);
    if (published || watcher.contain()) continue;
    // It is to reach the caller, once the other observers have had their turn. The call's own exception, or
    // the first observer's, is the one to see.
    ok = false;
    if (type != nullptr) {
      PyErr_Clear();
    } else {
      PyErr_Fetch(&type, &value, &traceback);
    }
  }
  attached->end_publishing(root);
  if (type != nullptr) PyErr_Restore(type, value, traceback);
  return ok;
}

bool contain_unobserved(PyNode& root) {
  PyObject *type, *value, *traceback;
  PyErr_Fetch(&type, &value, &traceback);
  const std::shared_ptr<RootObservation> attached = root.observation_;
  bool contained = true;
  for (std::size_t i = 0; attached != nullptr && i < attached->observers.size(); ++i) {
    PyErr_Restore(Py_XNewRef(type), Py_XNewRef(value), Py_XNewRef(traceback));
    contained &= static_cast<PyObserver&>(*attached->observers[i]).contain();
    PyErr_Clear();
  }
  if (!contained) {
    PyErr_Restore(type, value, traceback);
    return false;
  }
  Py_XDECREF(type);
  Py_XDECREF(value);
  Py_XDECREF(traceback);
  return true;
}

void defer_score(PyNode& node, EvalContext* context, PyObject* tensor) {
  for (EvalContext* c = EvalContext::open(context); c != nullptr; c = c->parent()) {
    const std::uint32_t slot = c->shape().slot_of(node);
    if (slot == TreeShape::kNotInTree) continue;
    if (c->host_pending == nullptr) c->host_pending = PyList_New(0);
    auto* const pending = static_cast<PyObject*>(c->host_pending);
    PyObject* const entry = Py_BuildValue("(kO)", static_cast<unsigned long>(slot), tensor);
    if (pending == nullptr || entry == nullptr || PyList_Append(pending, entry) != 0) {
      PyErr_WriteUnraisable(tensor);
    }
    Py_XDECREF(entry);
  }
}

// A finished call whose numbers are not here yet: its own copy of the context.
struct PyObserver::Deferred {
  static constexpr const char* kCapsule = "rubriscope.DeferredSnapshot";

  static void free(PyObject* capsule) {
    auto* const deferred = static_cast<Deferred*>(PyCapsule_GetPointer(capsule, kCapsule));
    close_context(deferred->context);
    Py_DECREF(deferred->action);
    Py_DECREF(deferred->observation);
    delete deferred;
  }

  std::shared_ptr<Observer> observer;
  EvalContext* context;
  PyObject* action;  // what the captures borrow from
  PyObject* observation;
  std::uint64_t end_tick;
  Prepared prepared;
};

bool PyObserver::publish_later(std::shared_ptr<Observer> self, EvalContext& context, PyObject* action,
                               PyObject* observation, std::uint64_t end_tick) {
  static PyObject* function = nullptr;
  PyObject* const complete = import_once(function, "rubriscope._device", "complete_later");
  if (complete == nullptr) return false;
  auto* const deferred = new Deferred{
      std::move(self), EvalContext::copy(context), Py_NewRef(action), Py_NewRef(observation), end_tick, {}};
  PyObject* const capsule = PyCapsule_New(deferred, Deferred::kCapsule, Deferred::free);
  if (capsule == nullptr) return false;
  PyObject* ignored = nullptr;
  if (prepare(context, action, observation, deferred->prepared)) {
    deferred->prepared.own_position();
    ignored = PyObject_CallFunctionObjArgs(complete, capsule, static_cast<PyObject*>(context.host_pending),
                                           nullptr);
  }
  Py_DECREF(capsule);
  Py_XDECREF(ignored);
  return ignored != nullptr;
}

// _publish_deferred(capsule, [(slot, number or None, reason)]): the numbers of a call have arrived.
PyObject* publish_deferred(PyObject*, PyObject* args) { return PyObserver::publish_deferred(args); }

PyObject* PyObserver::publish_deferred(PyObject* args) {
  PyObject* capsule = nullptr;
  PyObject* numbers = nullptr;
  if (!PyArg_ParseTuple(args, "OO!", &capsule, &PyList_Type, &numbers)) return nullptr;
  auto* const deferred = static_cast<Deferred*>(PyCapsule_GetPointer(capsule, Deferred::kCapsule));
  if (deferred == nullptr) return nullptr;
  for (Py_ssize_t i = 0; i < PyList_GET_SIZE(numbers); ++i) {
    unsigned long slot = 0;
    double number = 0;
    const char* reason = nullptr;
    if (!PyArg_ParseTuple(PyList_GET_ITEM(numbers, i), "kdz", &slot, &number, &reason)) return nullptr;
    deferred->context->complete(static_cast<std::uint32_t>(slot), number,
                                reason != nullptr ? reason : std::string_view{});
  }
  auto& watcher = static_cast<PyObserver&>(*deferred->observer);
  if (!watcher.write(*deferred->context, deferred->prepared, deferred->end_tick) && !watcher.contain()) {
    return nullptr;
  }
  Py_RETURN_NONE;
}

}  // namespace rubriscope::binding
