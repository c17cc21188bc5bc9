#include "rubriscope/binding/trace_span.h"

#include <cstring>
#include <new>

#include "rubriscope/binding/open_recorders.h"
#include "rubriscope/binding/py_names.h"
#include "rubriscope/binding/trace_context.h"
#include "rubriscope/binding/trace_metadata.h"
#include "rubriscope/trace/span_schema.h"
#include "rubriscope/trace/summary.h"

namespace rubriscope::binding {

namespace {

PyObject* g_innermost = nullptr;  // contextvars.ContextVar of SpanObject

// Whether any context may have a span: until one is entered nobody needs to look.
bool g_entered_any = false;

// Spans come and go by the million: a few are kept.
constexpr std::size_t kMostFree = 64;
SpanObject* g_free[kMostFree];
std::size_t g_free_count = 0;

SpanObject* span_of(PyObject* object) { return reinterpret_cast<SpanObject*>(object); }
PyObject* object_of(SpanObject* span) { return reinterpret_cast<PyObject*>(span); }

void set_innermost(SpanObject* span) {
  PyObject* const token = PyContextVar_Set(g_innermost, span != nullptr ? object_of(span) : Py_None);
  if (token == nullptr) {
    PyErr_Clear();  // no memory: the next spans keep their old parent
    return;
  }
  Py_DECREF(token);
}

/// Takes a reference and gives one.
SpanObject* past_ended_traces(SpanObject* span) {
  while (span != nullptr && span->is_trace && span->ended) [[unlikely]] {
    SpanObject* const before = span->parent;
    Py_XINCREF(object_of(before));
    Py_DECREF(object_of(span));
    span = before;
  }
  return span;
}

/// The context goes back to the span before. Where another is innermost (spans that overlap without nesting)
/// it stays, and this one is passed over when that one ends.
void leave(SpanObject* span) {
  SpanObject* const now = innermost_span();
  if (now == span) {
    SpanObject* before = span->parent;
    while (before != nullptr && before->out_of_order) before = before->parent;
    set_innermost(before);
    // Not kept: a task that starts the next one inside a span, again and again, would keep them all.
    if (!span->is_trace) Py_CLEAR(span->parent);
  } else {
    span->out_of_order = true;
  }
  Py_XDECREF(object_of(now));
  // Contexts that still hold an ended trace go on to what is around it: kept, but no chain of ended ones.
  if (span->is_trace) span->parent = past_ended_traces(span->parent);
}

void add_member(SpanObject* span, const char* name, PyObject* value) {
  PyObject* const key = PyUnicode_FromString(name);
  if (key == nullptr || value == nullptr) {
    PyErr_Clear();
  } else {
    set_member(span->members, key, value);
  }
  Py_XDECREF(key);
}

void note_exception(SpanObject* span, PyObject* type, PyObject* value) {
  if (span->outcome == Outcome::success) span->outcome = Outcome::error;
  PyObject* keep = nullptr;
  const std::string_view text =
      value != nullptr && value != Py_None ? text_of_any(value, keep) : std::string_view{};
  PyObject* const said = PyUnicode_DecodeUTF8(text.data(), static_cast<Py_ssize_t>(text.size()), "replace");
  add_member(span, "error", said);
  Py_XDECREF(said);
  Py_XDECREF(keep);
  PyObject* const name =
      PyType_Check(type) ? PyUnicode_FromString(reinterpret_cast<PyTypeObject*>(type)->tp_name) : nullptr;
  add_member(span, "error_type", name);
  Py_XDECREF(name);
}

PyObject* span_enter(PyObject* self, PyObject*) {
  SpanObject* const span = span_of(self);
  if (span->entered || span->ended) {
    PyErr_SetString(PyExc_RuntimeError, "a span is entered once: make one for each `with`");
    return nullptr;
  }
  span->entered = true;
  if (span->point != nullptr) {
    begin(span);
  } else {
    span->parent = innermost_span();  // what to go back to
  }
  set_innermost(span);
  g_entered_any = true;
  return Py_NewRef(self);
}

PyObject* span_exit(PyObject* self, PyObject* const* args, Py_ssize_t count) {
  SpanObject* const span = span_of(self);
  if (!span->entered || span->ended) Py_RETURN_FALSE;
  const std::uint64_t spent = ticks_to_ns(ticks() - span->start);
  leave(span);
  span->ended = true;
  if (span->point != nullptr) {
    if (count >= 2 && args[0] != Py_None) note_exception(span, args[0], args[1]);
    write_span(span, spent, span->outcome == Outcome::success ? TraceLevel::info : TraceLevel::warn);
  }
  Py_RETURN_FALSE;
}

/// The keyword arguments of a vector call into the metadata.
void take_members(SpanObject* span, PyObject* const* values, PyObject* names) {
  for (Py_ssize_t i = 0; names != nullptr && i < PyTuple_GET_SIZE(names); ++i) {
    set_member(span->members, PyTuple_GET_ITEM(names, i), values[i]);
  }
}

PyObject* span_set_output(PyObject* self, PyObject* const* args, Py_ssize_t count, PyObject* names) {
  SpanObject* const span = span_of(self);
  if (count > 1) {
    return PyErr_Format(PyExc_TypeError, "set_output() takes an output and metadata by name, got %zd outputs",
                        count);
  }
  if (span->ended) Py_RETURN_NONE;
  if (count == 1) {
    PyObject* const before = span->output;
    span->output = PyUnicode_Check(args[0]) ? Py_NewRef(args[0]) : PyObject_Str(args[0]);
    Py_XDECREF(before);
    if (span->output == nullptr) PyErr_Clear();
  }
  take_members(span, args + count, names);
  Py_RETURN_NONE;
}

PyObject* span_block(PyObject* self, PyObject* const* args, Py_ssize_t count, PyObject* names) {
  SpanObject* const span = span_of(self);
  if (count > 1) {
    return PyErr_Format(PyExc_TypeError, "block() takes a reason and metadata by name, got %zd reasons",
                        count);
  }
  if (span->ended) Py_RETURN_NONE;
  span->outcome = Outcome::blocked;
  if (count == 1) add_member(span, "reason", args[0]);
  take_members(span, args + count, names);
  Py_RETURN_NONE;
}

PyObject* span_fail(PyObject* self, PyObject* const* args, Py_ssize_t count) {
  SpanObject* const span = span_of(self);
  if (count > 1) return PyErr_Format(PyExc_TypeError, "fail() takes what went wrong, got %zd values", count);
  if (span->ended) Py_RETURN_NONE;
  span->outcome = Outcome::error;
  if (count == 1) add_member(span, "error", args[0]);
  Py_RETURN_NONE;
}

PyObject* text_object(std::string_view text) {
  return PyUnicode_FromStringAndSize(text.data(), static_cast<Py_ssize_t>(text.size()));
}

PyObject* span_trace_id(PyObject* self, void*) { return text_object(span_of(self)->id_text()); }

PyObject* span_parent_id(PyObject* self, void*) {
  SpanObject* const span = span_of(self);
  if (span->parent_id_size == 0) Py_RETURN_NONE;
  return text_object(span->parent_id_text());
}

PyObject* span_status(PyObject* self, void*) { return text_object(outcome_name(span_of(self)->outcome)); }

PyObject* span_w3c_trace_id(PyObject* self, void*) { return text_object(span_of(self)->trace.hex()); }

PyObject* span_traceparent(PyObject* self, void*) {
  SpanObject* const span = span_of(self);
  if (span->random == 0) Py_RETURN_NONE;
  std::string text = "00-" + span->trace.hex() + "-" + std::string(16, '0');
  write_hex(text.data() + text.size() - 16, span->random, 16);
  text += span->sampled ? "-01" : "-00";
  return text_object(text);
}

PyObject* span_trace_state(PyObject* self, void*) { return text_object(span_of(self)->trace_state); }

int span_true(PyObject*) { return 1; }

void span_dealloc(PyObject* self) {
  SpanObject* const span = span_of(self);
  if (span->event_if_unused && !span->entered && !span->ended && g_trace.enabled) {
    // Written with what it knows; the object must not die twice while other code may see it.
    PyObject* type = nullptr;
    PyObject* value = nullptr;
    PyObject* trace = nullptr;
    PyErr_Fetch(&type, &value, &trace);
    begin(span);
    span->ended = true;
    write_span(span, 0, span->outcome == Outcome::success ? TraceLevel::info : TraceLevel::warn);
    PyErr_Restore(type, value, trace);
  }
  Py_CLEAR(span->input);
  Py_CLEAR(span->output);
  SpanObject* const parent = span->parent;
  span->parent = nullptr;
  if (g_free_count < kMostFree && span->members.capacity() < 4096) {
    g_free[g_free_count++] = span;
  } else {
    span->members.~basic_string();
    span->trace_state.~basic_string();
    PyObject_Free(self);
  }
  Py_XDECREF(object_of(parent));
}

PyObject* span_repr(PyObject* self) {
  SpanObject* const span = span_of(self);
  const std::string id(span->id_text());
  if (span->point == nullptr) return PyUnicode_FromFormat("<Span %s of another process>", id.c_str());
  return PyUnicode_FromFormat("<Span %s %s.%s>", id.empty() ? "not entered" : id.c_str(),
                              span->point->layer->code.c_str(), span->point->operation.c_str());
}

PyMethodDef g_methods[] = {
    {"set_output", as_method(span_set_output), METH_FASTCALL | METH_KEYWORDS, nullptr},
    {"block", as_method(span_block), METH_FASTCALL | METH_KEYWORDS, nullptr},
    {"fail", as_method(span_fail), METH_FASTCALL, nullptr},
    {"__enter__", span_enter, METH_NOARGS, nullptr},
    {"__exit__", as_method(span_exit), METH_FASTCALL, nullptr},
    {nullptr, nullptr, 0, nullptr},
};

PyGetSetDef g_getset[] = {
    {"trace_id", span_trace_id, nullptr, nullptr, nullptr},
    {"parent_id", span_parent_id, nullptr, nullptr, nullptr},
    {"status", span_status, nullptr, nullptr, nullptr},
    {"w3c_trace_id", span_w3c_trace_id, nullptr, nullptr, nullptr},
    {"traceparent", span_traceparent, nullptr, nullptr, nullptr},
    {"_trace_state", span_trace_state, nullptr, nullptr, nullptr},
    {nullptr, nullptr, nullptr, nullptr, nullptr},
};

PyNumberMethods g_truth = [] {
  PyNumberMethods methods{};
  methods.nb_bool = span_true;
  return methods;
}();

}  // namespace

PyTypeObject SpanType = [] {
  PyTypeObject type{};
  type.ob_base = {PyObject_HEAD_INIT(nullptr) 0};
  type.tp_name = "rubriscope._C.Span";
  type.tp_basicsize = sizeof(SpanObject);
  type.tp_dealloc = span_dealloc;
  type.tp_repr = span_repr;
  type.tp_as_number = &g_truth;
  type.tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION;
  type.tp_doc = "A span of a trace, made by rs.tracer.span().";
  type.tp_methods = g_methods;
  type.tp_getset = g_getset;
  return type;
}();

void SpanObject::set_trace_id(std::string_view text) {
  trace_id_size = static_cast<std::uint8_t>(text.size());
  std::memcpy(trace_id, text.data(), text.size());
}

SpanObject* innermost_span() {
  PyObject* found = nullptr;
  if (PyContextVar_Get(g_innermost, Py_None, &found) != 0) {
    PyErr_Clear();
    return nullptr;
  }
  if (found == Py_None) {
    Py_DECREF(found);
    return nullptr;
  }
  return past_ended_traces(span_of(found));
}

PyObject* current_span() { return g_entered_any ? object_of(innermost_span()) : nullptr; }

SpanIds ids_of_span(PyObject* span) { return {span_of(span)->trace_id_text(), span_of(span)->id_text()}; }

SpanObject* new_span(TracePoint* point, PyObject* input) {
  SpanObject* span = nullptr;
  if (g_free_count != 0) {
    span = g_free[--g_free_count];
    PyObject_Init(object_of(span), &SpanType);
    span->members.clear();
    span->trace_state.clear();
  } else {
    span = PyObject_New(SpanObject, &SpanType);
    if (span == nullptr) return nullptr;
    new (&span->members) std::string;
    new (&span->trace_state) std::string;
  }
  span->parent = nullptr;
  span->point = point;
  span->input = Py_XNewRef(input);
  span->output = nullptr;
  span->start = 0;
  span->random = 0;
  span->trace = {};
  span->outcome = Outcome::success;
  span->foreign = span->began = span->entered = span->ended = false;
  span->event_if_unused = span->out_of_order = span->is_trace = false;
  span->sampled = true;
  span->id_size = span->parent_id_size = span->trace_id_size = 0;
  return span;
}

void begin(SpanObject* span) {
  if (span->began) return;
  span->began = true;
  span->parent = innermost_span();
  span->random = random_span_id();
  span->start = ticks();
  span->started = clock_times(span->start);
  const std::int64_t seconds = span->started.wall_ns / 1'000'000'000;
  char* const end = write_trace_id(span->id, span->point->layer->code, seconds, span->random);
  span->id_size = static_cast<std::uint8_t>(end - span->id);
  if (span->parent != nullptr) {
    span->trace = span->parent->trace;
    span->foreign = span->parent->foreign;
    span->sampled = span->parent->sampled;
    if (span->foreign) span->trace_state = span->parent->trace_state;
    span->parent_id_size = span->parent->id_size;
    std::memcpy(span->parent_id, span->parent->id, span->parent_id_size);
  } else {
    span->trace = trace_number(span->point->layer->code, seconds, span->random);
  }
  const bool begins = span->parent == nullptr || span->is_trace;
  span->set_trace_id(begins ? span->id_text() : span->parent->trace_id_text());
}

void write_span(SpanObject* span, std::uint64_t duration_ns, TraceLevel level) {
  if (!span->is_trace && (!g_trace.enabled || level < g_trace.least)) return;
  EventField fields[kRemote + 1];
  std::size_t count = 0;
  fields[count++] = {kTraceId, span->id_text()};
  if (span->parent_id_size != 0) fields[count++] = {kParentId, span->parent_id_text()};
  PyObject* keep_input = nullptr;
  PyObject* keep_output = nullptr;
  if (span->input != nullptr) {
    const std::string_view text = cut_summary(text_of_any(span->input, keep_input));
    if (!text.empty()) fields[count++] = {kInputSummary, text};
  }
  if (span->output != nullptr) {
    const std::string_view text = cut_summary(text_of_any(span->output, keep_output));
    if (!text.empty()) fields[count++] = {kOutputSummary, text};
  }
  std::string trace;
  if (span->foreign || current_recorder() != nullptr) {
    // A file of trace events tells it by the root; an exporter sees one record at a time.
    trace = span->trace.hex();
    fields[count++] = {kW3cTrace, trace};
  }
  if (span->foreign) fields[count++] = {kRemote, "1"};
  std::string& metadata = span->members;
  if (!metadata.empty()) {
    metadata.insert(metadata.begin(), '{');
    metadata += '}';
  }
  const auto spent = static_cast<std::int64_t>(duration_ns);
  Event event{RecordKind::span,
              0,
              {},
              span->started.wall_ns + spent,
              span->started.monotonic_ns + spent,
              duration_ns,
              span->outcome,
              {},
              {fields, count},
              metadata};
  publish_to_outputs(*span->point, event);
  Py_XDECREF(keep_input);
  Py_XDECREF(keep_output);
}

bool add_span_type(PyObject* module) {
  g_innermost = PyContextVar_New("rubriscope_span", nullptr);
  return g_innermost != nullptr && PyType_Ready(&SpanType) == 0 &&
         PyModule_AddObjectRef(module, "Span", reinterpret_cast<PyObject*>(&SpanType)) == 0;
}

}  // namespace rubriscope::binding
