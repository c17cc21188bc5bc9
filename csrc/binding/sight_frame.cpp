// The end of a sight point's call: figures, window, record, action.
#include <array>
#include <cmath>
#include <limits>

#include "rubriscope/binding/open_recorders.h"
#include "rubriscope/binding/py_names.h"
#include "rubriscope/binding/sight.h"
#include "rubriscope/binding/trace_context.h"
#include "rubriscope/core/clock.h"
#include "rubriscope/core/errors.h"
#include "rubriscope/recorder/event.h"
#include "rubriscope/recorder/report.h"

namespace rubriscope::binding {

namespace {

constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

thread_local SightFrame* t_top = nullptr;
thread_local bool t_probing = false;
std::uint64_t g_sequence = 0;
std::uint64_t g_failures = 0;

void record(SightPoint& point, std::uint64_t end_tick, std::uint64_t duration_ns, Outcome outcome,
            std::span<const double> values, std::span<const EventField> fields) {
  const std::shared_ptr<PyRecorder>& recorder = sight_recorder();
  if (recorder == nullptr) return;
  if (point.recorder != recorder->number() || point.schema_metrics != values.size()) {
    point.schema_id = recorder->core().define(point.schema());
    point.schema_metrics = values.size();
    point.recorder = recorder->number();
  }
  const ClockTimes now = clock_times(end_tick);
  Event event{RecordKind::observation,
              point.schema_id,
              recorder->take_log_position(std::nullopt),
              now.wall_ns,
              now.monotonic_ns,
              duration_ns,
              outcome,
              values,
              fields,
              {}};
  if (try_publish(recorder->core(), event)) return;
  // Other threads run meanwhile: the recorder may be closed, and the position's episode go.
  const std::shared_ptr<PyRecorder> held = recorder;
  const std::string episode(event.position.episode);
  event.position.episode = episode;
  Py_BEGIN_ALLOW_THREADS;
  publish(held->core(), event);  // what is refused is counted by the recorder
  Py_END_ALLOW_THREADS;
}

// The first limit that was passed, as "latency_ms 1.3 > 1.2"; empty when none was.
std::string violation_of(const SightFrame& frame, std::span<const double> values) {
  for (const SightLimit& limit : frame.point->limits()) {
    const double value = values[limit.metric];
    bool beyond = value > limit.limit;
    for (const std::size_t place : frame.nans) beyond |= place == limit.metric;
    if (beyond) {
      return violation_text(frame.point->metrics()[limit.metric], value, limit.limit);
    }
  }
  return {};
}

std::string text_of_object(PyObject* object) {
  Py_ssize_t size = 0;
  const char* const utf8 = PyUnicode_Check(object) ? PyUnicode_AsUTF8AndSize(object, &size) : nullptr;
  if (utf8 == nullptr) {
    PyErr_Clear();  // lone surrogates, or no text
    return {};
  }
  return {utf8, static_cast<std::size_t>(size)};
}

// "TypeName: message", as the Python side tells it.
std::string error_text(PyObject* error) {
  static PyObject* function = nullptr;
  PyObject* const tell = import_once(function, "rubriscope.code_sight._actions", "error_text");
  PyObject* const text = tell != nullptr ? PyObject_CallOneArg(tell, error) : nullptr;
  if (text == nullptr) {
    contain_sight_failure();
    return Py_TYPE(error)->tp_name;
  }
  std::string told = text_of_object(text);
  Py_DECREF(text);
  return told;
}

// The arguments and the result as texts. False, with the exception contained, when they cannot be told.
bool snapshot(const SightCall& call, std::string& arguments, std::string& result) {
  static PyObject* function = nullptr;
  PyObject* const take = import_once(function, "rubriscope.code_sight._actions", "snapshot");
  PyObject* const args = PyTuple_New(static_cast<Py_ssize_t>(call.count));
  PyObject* const kwargs = PyDict_New();
  bool made = take != nullptr && args != nullptr && kwargs != nullptr;
  for (std::size_t i = 0; made && i < call.count; ++i) {
    PyTuple_SET_ITEM(args, static_cast<Py_ssize_t>(i), Py_NewRef(call.args[i]));
  }
  const Py_ssize_t named = call.keywords != nullptr ? PyTuple_GET_SIZE(call.keywords) : 0;
  for (Py_ssize_t i = 0; made && i < named; ++i) {
    made = PyDict_SetItem(kwargs, PyTuple_GET_ITEM(call.keywords, i),
                          call.args[call.count + static_cast<std::size_t>(i)]) == 0;
  }
  PyObject* const texts =
      made ? PyObject_CallFunctionObjArgs(take, args, kwargs, call.result != nullptr ? call.result : Py_None,
                                          nullptr)
           : nullptr;
  Py_XDECREF(args);
  Py_XDECREF(kwargs);
  if (texts == nullptr) {
    contain_sight_failure();
    return false;
  }
  arguments = text_of_object(PyTuple_GET_ITEM(texts, 0));
  result = text_of_object(PyTuple_GET_ITEM(texts, 1));
  Py_DECREF(texts);
  return true;
}

// Logs, or calls the alert handlers. `level` and `message` are an injection's.
void act(const SightPoint& point, SightAction action, std::uint64_t duration_ns, const std::string& violation,
         std::span<const double> values, const std::string& message = {}, const std::string& level = {}) {
  if (action != SightAction::log && action != SightAction::alert) return;
  static PyObject* function = nullptr;
  PyObject* const run = import_once(function, "rubriscope.code_sight._actions", "act");
  PyObject* const metrics = PyDict_New();
  bool made = run != nullptr && metrics != nullptr;
  for (std::size_t i = 0; made && i < values.size(); ++i) {
    if (std::isnan(values[i])) continue;
    PyObject* const value = PyFloat_FromDouble(values[i]);
    made = value != nullptr && PyDict_SetItemString(metrics, point.metrics()[i].c_str(), value) == 0;
    Py_XDECREF(value);
  }
  PyObject* const done =
      made ? PyObject_CallFunction(run, "ssssdOss", action == SightAction::log ? "log" : "alert",
                                   point.name().c_str(), point.modality().c_str(), violation.c_str(),
                                   static_cast<double>(duration_ns) * 1e-6, metrics, message.c_str(),
                                   level.c_str())
           : nullptr;
  Py_XDECREF(metrics);
  if (done == nullptr) return contain_sight_failure();
  Py_DECREF(done);
}

// Completes what the call gave of tokens and cost, and adds it up.
void settle(SightPoint& point, std::span<double> values, std::string_view trace) {
  const auto given = [&](std::size_t slot) { return slot < values.size() ? values[slot] : kNone; };
  TokenUse use{given(point.token_slot), given(point.input_slot), given(point.output_slot),
               given(point.cost_slot)};
  use.complete(point.price());
  if (point.token_slot < values.size()) values[point.token_slot] = use.tokens;
  if (point.cost_slot < values.size()) values[point.cost_slot] = use.cost;
  point.costs.add(use, point.price() != nullptr);
  if (!trace.empty()) trace_costs().add(trace, use, point.price() != nullptr);
}

// A number of a Python object as a metric. False with an exception set.
bool give(SightFrame& frame, const char* name, PyObject* value) {
  const double number = PyFloat_AsDouble(value);
  if (number == -1.0 && PyErr_Occurred() != nullptr) return false;
  try {
    frame.metric(name, number);
  } catch (const std::exception& failure) {
    PyErr_SetString(PyExc_ValueError, failure.what());
    return false;
  }
  return true;
}

void join(std::string& text, const std::string& more) {
  if (more.empty()) return;
  if (!text.empty()) text += "; ";
  text += more;
}

// True: the call is to be stopped.
bool end(SightFrame& frame, PyObject* error, const SightCall& call, std::string& violation) {
  const std::uint64_t end_tick = ticks();
  SightPoint& point = *frame.point;
  const std::uint64_t duration_ns = ticks_to_ns(end_tick - frame.begin_tick);
  std::array<double, SightPoint::kMaxMetrics> room;
  const std::size_t n = point.metrics().size();
  for (std::size_t i = 0; i < n; ++i) room[i] = i < frame.values.size() ? frame.values[i] : kNone;
  if (point.latency_slot < n && std::isnan(room[point.latency_slot])) {
    room[point.latency_slot] = static_cast<double>(duration_ns) * 1e-6;
  }
  if (point.cpu_slot < n && frame.begin_cpu_ns >= 0 && std::isnan(room[point.cpu_slot])) {
    room[point.cpu_slot] =
        static_cast<double>(detail::read_clock(CLOCK_THREAD_CPUTIME_ID) - frame.begin_cpu_ns) * 1e-6;
  }
  const SpanIds ids = frame.span != nullptr ? ids_of_span(frame.span) : SpanIds{};
  if (point.billed()) settle(point, {room.data(), n}, ids.trace);
  const std::span<const double> values(room.data(), n);
  std::array<EventField, 7> fields;
  std::size_t told = 0;
  const auto tell = [&](SightField field, std::string_view text) {
    fields[told++] = {static_cast<std::uint16_t>(field), text};
  };
  if (!ids.trace.empty()) {
    tell(SightField::trace_id, ids.trace);
    tell(SightField::parent_id, ids.parent);
  }
  Outcome outcome = error != nullptr ? Outcome::error : Outcome::success;
  if (!point.acts() && error == nullptr && point.injections == nullptr) {
    point.count(duration_ns, outcome);
    sight_window().push(point, end_tick, duration_ns, outcome, values, ids.trace, ids.parent);
    record(point, end_tick, duration_ns, outcome, values, {fields.data(), told});
    return false;
  }
  violation = violation_of(frame, values);
  const bool acting = point.acts() && (point.limits().empty() || !violation.empty());
  const std::string own_violation = violation;
  std::string message;
  std::vector<InjectionHit> hits;
  bool takes_snapshot = acting && point.action() == SightAction::snapshot;
  bool stops = acting && point.action() == SightAction::fail_closed;
  if (point.injections != nullptr) {
    hits = probe_call(frame, duration_ns, error, call, {room.data(), n});
    for (const InjectionHit& hit : hits) {
      join(violation, hit.violation);
      join(message, hit.message);
      takes_snapshot |= hit.injection->action == SightAction::snapshot;
      stops |= hit.injection->action == SightAction::fail_closed;
    }
  }
  stops &= error == nullptr;
  if (stops) outcome = Outcome::blocked;
  point.count(duration_ns, outcome);
  sight_window().push(point, end_tick, duration_ns, outcome, values, ids.trace, ids.parent);
  std::string arguments, result, raised;
  if (!violation.empty()) tell(SightField::violation, violation);
  if (error != nullptr) tell(SightField::error, raised = error_text(error));
  if (takes_snapshot && snapshot(call, arguments, result)) {
    tell(SightField::arguments, arguments);
    tell(SightField::result, result);
  }
  if (!message.empty()) tell(SightField::message, message);
  record(point, end_tick, duration_ns, outcome, values, {fields.data(), told});
  if (acting) act(point, point.action(), duration_ns, own_violation, values);
  for (const InjectionHit& hit : hits) {
    act(point, hit.injection->action, duration_ns, hit.violation, values, hit.message, hit.injection->level);
  }
  return stops;
}

// The frame's reference to its span goes when its call has ended.
class SpanHeld {
 public:
  explicit SpanHeld(SightFrame& frame) : frame_(frame) {}
  ~SpanHeld() { Py_CLEAR(frame_.span); }
  SpanHeld(const SpanHeld&) = delete;
  SpanHeld& operator=(const SpanHeld&) = delete;

 private:
  SightFrame& frame_;
};

// While one stands, the thread is probing; the observation's own calls are let through.
class Probing {
 public:
  explicit Probing(bool on) : before_(t_probing) { t_probing |= on; }
  ~Probing() { t_probing = before_; }
  Probing(const Probing&) = delete;
  Probing& operator=(const Probing&) = delete;

 private:
  bool before_;
};

}  // namespace

void SightFrame::metric(std::string_view name, double value) {
  const std::size_t place = point->metric(name);
  point->check(place, value);
  if (values.size() <= place) values.resize(point->metrics().size(), kNone);
  values[place] = value;
  if (std::isnan(value)) nans.push_back(place);
}

void begin_frame(SightFrame& frame, SightPoint& point) {
  frame.point = &point;
  frame.sequence = ++g_sequence;
  frame.outer = nullptr;
  if (point.cpu_slot != SightPoint::kMaxMetrics) {
    frame.begin_cpu_ns = detail::read_clock(CLOCK_THREAD_CPUTIME_ID);
  }
  frame.span = current_span();
  frame.begin_tick = ticks();
}

void push_frame(SightFrame& frame) {
  frame.outer = t_top;
  t_top = &frame;
}

void pop_frame(SightFrame& frame) { t_top = frame.outer; }

SightFrame* top_frame() { return t_top; }

void supply_tokens(SightFrame& frame, PyObject* tokens, PyObject* result) {
  const SightPoint& point = *frame.point;
  for (const std::size_t slot : {point.token_slot, point.input_slot, point.output_slot}) {
    if (slot < frame.values.size() && !std::isnan(frame.values[slot])) return;
  }
  PyObject* const count = PyCallable_Check(tokens) ? PyObject_CallOneArg(tokens, result) : Py_NewRef(tokens);
  bool given = count != nullptr;
  if (given && PyTuple_Check(count) && PyTuple_GET_SIZE(count) == 2) {
    given = give(frame, "input_tokens", PyTuple_GET_ITEM(count, 0)) &&
            give(frame, "output_tokens", PyTuple_GET_ITEM(count, 1));
  } else if (given && count != Py_None) {
    given = give(frame, "token_count", count);
  }
  Py_XDECREF(count);
  if (!given) contain_sight_failure();
}

TraceCosts& trace_costs() {
  static auto* const costs = new TraceCosts;
  return *costs;
}

bool sight_probing() { return t_probing; }

bool end_frame(SightFrame& frame, PyObject* error, const SightCall& call) {
  const Probing probing(frame.point->injections != nullptr);
  const SpanHeld held(frame);
  std::string violation;
  try {
    if (!end(frame, error, call, violation)) return true;
  } catch (const std::exception& failure) {
    PyErr_SetString(PyExc_RuntimeError, failure.what());
    contain_sight_failure();
    return true;
  }
  static PyObject* fail_closed = nullptr;
  if (import_once(fail_closed, "rubriscope.errors", "FailClosed") == nullptr) return false;
  PyErr_Format(fail_closed, "sight point %s: %s", frame.point->name().c_str(), violation.c_str());
  return false;
}

void contain_sight_failure() {
  PyObject* type = nullptr;
  PyObject* value = nullptr;
  PyObject* trace = nullptr;
  PyErr_Fetch(&type, &value, &trace);
  if (g_failures++ == 0) {
    PyObject* const text = value != nullptr ? PyObject_Str(value) : nullptr;
    report("error",
           "observing a sight point failed, the program goes on (told once, sight.failures counts): " +
               (text != nullptr ? text_of_object(text) : std::string("no message")));
    Py_XDECREF(text);
    PyErr_Clear();
  }
  Py_XDECREF(type);
  Py_XDECREF(value);
  Py_XDECREF(trace);
}

std::uint64_t sight_failures() { return g_failures; }

SightWindow& sight_window() {
  static auto* const window = new SightWindow;
  return *window;
}

}  // namespace rubriscope::binding
