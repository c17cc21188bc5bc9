// rs.tracer.span() and rs.tracer.event(), and the span that stands for none while the tracer is off.
#include <cstring>

#include "rubriscope/binding/py_names.h"
#include "rubriscope/binding/trace_context.h"
#include "rubriscope/binding/trace_metadata.h"
#include "rubriscope/binding/trace_span.h"

namespace rubriscope::binding {

namespace {

// ---- While the tracer is off

PyObject* none_enter(PyObject* self, PyObject*) { return Py_NewRef(self); }
PyObject* none_exit(PyObject*, PyObject* const*, Py_ssize_t) { Py_RETURN_FALSE; }
PyObject* none_take(PyObject*, PyObject* const*, Py_ssize_t, PyObject*) { Py_RETURN_NONE; }
PyObject* none_get(PyObject*, void*) { Py_RETURN_NONE; }
PyObject* none_repr(PyObject*) { return PyUnicode_FromString("<no span: the tracer is off>"); }
int none_true(PyObject*) { return 0; }

PyMethodDef g_none_methods[] = {
    {"set_output", as_method(none_take), METH_FASTCALL | METH_KEYWORDS, nullptr},
    {"block", as_method(none_take), METH_FASTCALL | METH_KEYWORDS, nullptr},
    {"fail", as_method(none_take), METH_FASTCALL | METH_KEYWORDS, nullptr},
    {"__enter__", none_enter, METH_NOARGS, nullptr},
    {"__exit__", as_method(none_exit), METH_FASTCALL, nullptr},
    {nullptr, nullptr, 0, nullptr},
};

PyGetSetDef g_none_getset[] = {
    {"trace_id", none_get, nullptr, nullptr, nullptr},
    {"parent_id", none_get, nullptr, nullptr, nullptr},
    {"status", none_get, nullptr, nullptr, nullptr},
    {"w3c_trace_id", none_get, nullptr, nullptr, nullptr},
    {"traceparent", none_get, nullptr, nullptr, nullptr},
    {nullptr, nullptr, nullptr, nullptr, nullptr},
};

PyNumberMethods g_none_truth = [] {
  PyNumberMethods methods{};
  methods.nb_bool = none_true;
  return methods;
}();

PyTypeObject NoSpanType = [] {
  PyTypeObject type{};
  type.ob_base = {PyObject_HEAD_INIT(nullptr) 0};
  type.tp_name = "rubriscope._C.NoSpan";
  type.tp_basicsize = sizeof(PyObject);
  type.tp_repr = none_repr;
  type.tp_as_number = &g_none_truth;
  type.tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION;
  type.tp_doc = "What rs.tracer.span() gives while the tracer is off: false, and takes everything.";
  type.tp_methods = g_none_methods;
  type.tp_getset = g_none_getset;
  return type;
}();

PyObject* g_no_span = nullptr;

// ---- Arguments

/// Arguments by place or name into `out` (borrowed; nullptr where there is none). False with a TypeError.
bool take_arguments(const char* function, const char* const* names, Py_ssize_t most, Py_ssize_t needed,
                    PyObject* const* args, Py_ssize_t count, PyObject* keywords, PyObject** out) {
  if (count > most) {
    PyErr_Format(PyExc_TypeError, "%s() takes %zd arguments, got %zd", function, most, count);
    return false;
  }
  for (Py_ssize_t i = 0; i < most; ++i) out[i] = i < count ? args[i] : nullptr;
  for (Py_ssize_t i = 0; keywords != nullptr && i < PyTuple_GET_SIZE(keywords); ++i) {
    PyObject* const keyword = PyTuple_GET_ITEM(keywords, i);
    Py_ssize_t place = 0;
    while (place < most && PyUnicode_CompareWithASCIIString(keyword, names[place]) != 0) ++place;
    if (place == most || out[place] != nullptr) {
      PyErr_Format(PyExc_TypeError,
                   place == most ? "%s() got an unexpected keyword argument %R"
                                 : "%s() got multiple values for argument %R",
                   function, keyword);
      return false;
    }
    out[place] = args[count + i];
  }
  for (Py_ssize_t i = 0; i < needed; ++i) {
    if (out[i] == nullptr) {
      PyErr_Format(PyExc_TypeError, "%s() misses the argument '%s'", function, names[i]);
      return false;
    }
  }
  return true;
}

PyObject* g_empty = nullptr;  // ""

// span(hrm, operation, component="", input_data="")
PyObject* trace_span(PyObject*, PyObject* const* args, Py_ssize_t count, PyObject* keywords) {
  static const char* const names[] = {"hrm", "operation", "component", "input_data"};
  if (!g_trace.enabled) return Py_NewRef(g_no_span);
  PyObject* given[4];
  if (!take_arguments("span", names, 4, 2, args, count, keywords, given)) return nullptr;
  TracePoint* const point = point_of(given[0], given[1], given[2] != nullptr ? given[2] : g_empty);
  return point != nullptr ? reinterpret_cast<PyObject*>(new_span(point, given[3])) : nullptr;
}

bool add_metadata(SpanObject* span, PyObject* metadata) {
  if (metadata == nullptr || metadata == Py_None) return true;
  if (!PyDict_Check(metadata)) {
    PyErr_Format(PyExc_TypeError, "metadata is a dict, got %R", metadata);
    return false;
  }
  PyObject* key = nullptr;
  PyObject* value = nullptr;
  Py_ssize_t position = 0;
  while (PyDict_Next(metadata, &position, &key, &value)) set_member(span->members, key, value);
  return true;
}

bool take_level(PyObject* object, TraceLevel& level) {
  if (object == nullptr || object == Py_None) return true;
  for (int i = 0; PyUnicode_Check(object) && i < 3; ++i) {
    static const char* const names[] = {"debug", "info", "warn"};
    if (PyUnicode_CompareWithASCIIString(object, names[i]) != 0) continue;
    level = static_cast<TraceLevel>(i);
    return true;
  }
  PyErr_Format(PyExc_ValueError, "level is 'debug', 'info' or 'warn', got %R", object);
  return false;
}

bool take_status(PyObject* object, Outcome& outcome) {
  if (object == nullptr) return true;
  for (std::uint32_t i = 0; PyUnicode_Check(object) && i < kOutcomes; ++i) {
    const auto candidate = static_cast<Outcome>(i);
    if (PyUnicode_CompareWithASCIIString(object, std::string(outcome_name(candidate)).c_str()) != 0) continue;
    outcome = candidate;
    return true;
  }
  PyErr_Format(PyExc_ValueError, "status is 'success', 'error' or 'blocked', got %R", object);
  return false;
}

// event(hrm, operation, component="", input_data="", output_data="", status="success", metadata=None,
//       level=None) -> its id, or None while the tracer is off.
PyObject* trace_event(PyObject*, PyObject* const* args, Py_ssize_t count, PyObject* keywords) {
  static const char* const names[] = {"hrm",         "operation", "component", "input_data",
                                      "output_data", "status",    "metadata",  "level"};
  if (!g_trace.enabled) Py_RETURN_NONE;
  PyObject* given[8];
  if (!take_arguments("event", names, 8, 2, args, count, keywords, given)) return nullptr;
  TracePoint* const point = point_of(given[0], given[1], given[2] != nullptr ? given[2] : g_empty);
  SpanObject* const span = point != nullptr ? new_span(point, given[3]) : nullptr;
  if (span == nullptr) return nullptr;
  auto* const object = reinterpret_cast<PyObject*>(span);
  span->output = Py_XNewRef(given[4]);
  TraceLevel level = TraceLevel::info;
  if (!take_status(given[5], span->outcome) || !add_metadata(span, given[6])) {
    Py_DECREF(object);
    return nullptr;
  }
  if (span->outcome != Outcome::success) level = TraceLevel::warn;
  if (!take_level(given[7], level)) {
    Py_DECREF(object);
    return nullptr;
  }
  begin(span);
  span->ended = true;
  write_span(span, 0, level);
  PyObject* const id = PyUnicode_FromStringAndSize(span->id, static_cast<Py_ssize_t>(span->id_text().size()));
  Py_DECREF(object);
  return id;
}

// _trace_point(hrm, operation, component, input_data, output_data, metadata): what a typed helper gives. A
// span, and an event where nobody enters it.
PyObject* trace_point(PyObject*, PyObject* const* args, Py_ssize_t count) {
  if (!g_trace.enabled) return Py_NewRef(g_no_span);
  if (count != 6) return PyErr_Format(PyExc_TypeError, "_trace_point() takes 6 arguments, got %zd", count);
  TracePoint* const point = point_of(args[0], args[1], args[2]);
  SpanObject* const span = point != nullptr ? new_span(point, args[3]) : nullptr;
  if (span == nullptr) return nullptr;
  if (args[4] != Py_None) span->output = Py_NewRef(args[4]);
  if (!add_metadata(span, args[5])) {
    Py_DECREF(reinterpret_cast<PyObject*>(span));
    return nullptr;
  }
  span->event_if_unused = true;
  return reinterpret_cast<PyObject*>(span);
}

PyObject* trace_current(PyObject*, PyObject*) {
  SpanObject* const span = innermost_span();
  if (span == nullptr) Py_RETURN_NONE;
  return reinterpret_cast<PyObject*>(span);
}

// _trace_remote(id, trace id, span id, sampled, tracestate): a span of another process.
PyObject* trace_remote(PyObject*, PyObject* args) {
  const char* id = nullptr;
  const char* trace = nullptr;
  const char* random = nullptr;
  const char* state = nullptr;
  int sampled = 1;
  if (!PyArg_ParseTuple(args, "sssps:_trace_remote", &id, &trace, &random, &sampled, &state)) return nullptr;
  TraceNumber number;
  std::uint64_t span_id = 0;
  const std::string_view digits(trace);
  if (digits.size() != 32 || !read_hex(digits.substr(0, 16), number.high) ||
      !read_hex(digits.substr(16), number.low) || !read_hex(random, span_id) ||
      std::strlen(id) > kMostTraceId) {
    PyErr_SetString(PyExc_ValueError, "no ids of a span");
    return nullptr;
  }
  SpanObject* const span = new_span(nullptr, nullptr);
  if (span == nullptr) return nullptr;
  span->id_size = static_cast<std::uint8_t>(std::strlen(id));
  std::memcpy(span->id, id, span->id_size);
  span->set_trace_id(root_of_trace(number));
  span->trace = number;
  span->random = span_id;
  span->foreign = span->began = true;
  span->sampled = sampled != 0;
  span->trace_state = state;
  return reinterpret_cast<PyObject*>(span);
}

// _trace_new(name, metadata): a MultimodalTracer's trace, a span that is entered whether the tracer is on or
// not.
PyObject* trace_new(PyObject*, PyObject* const* args, Py_ssize_t count) {
  if (count != 2) return PyErr_Format(PyExc_TypeError, "_trace_new() takes 2 arguments, got %zd", count);
  SpanObject* const span = new_span(multimodal_point(), args[0]);
  if (span == nullptr) return nullptr;
  span->is_trace = true;
  if (add_metadata(span, args[1])) return reinterpret_cast<PyObject*>(span);
  Py_DECREF(reinterpret_cast<PyObject*>(span));
  return nullptr;
}

// _trace_ids(): what an event of this context carries, (id of its trace, id of the span it stands in), or
// None.
PyObject* trace_ids(PyObject*, PyObject*) {
  PyObject* const span = current_span();
  if (span == nullptr) Py_RETURN_NONE;
  const SpanIds ids = ids_of_span(span);
  PyObject* const trace =
      PyUnicode_FromStringAndSize(ids.trace.data(), static_cast<Py_ssize_t>(ids.trace.size()));
  PyObject* const parent =
      PyUnicode_FromStringAndSize(ids.parent.data(), static_cast<Py_ssize_t>(ids.parent.size()));
  PyObject* const pair = trace != nullptr && parent != nullptr ? PyTuple_Pack(2, trace, parent) : nullptr;
  Py_XDECREF(trace);
  Py_XDECREF(parent);
  Py_DECREF(span);
  return pair;
}

PyObject* trace_on(PyObject*, PyObject*) { return PyBool_FromLong(g_trace.enabled); }

PyMethodDef g_functions[] = {
    {"_trace_on", trace_on, METH_NOARGS, nullptr},
    {"span", as_method(trace_span), METH_FASTCALL | METH_KEYWORDS, nullptr},
    {"event", as_method(trace_event), METH_FASTCALL | METH_KEYWORDS, nullptr},
    {"current_span", trace_current, METH_NOARGS, nullptr},
    {"_trace_ids", trace_ids, METH_NOARGS, nullptr},
    {"_trace_new", as_method(trace_new), METH_FASTCALL, nullptr},
    {"_trace_point", as_method(trace_point), METH_FASTCALL, nullptr},
    {"_trace_remote", trace_remote, METH_VARARGS, nullptr},
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace

PyObject* no_span() { return g_no_span; }

bool add_trace_types(PyObject* module) {
  if (!add_span_type(module) || PyType_Ready(&NoSpanType) != 0) return false;
  g_empty = PyUnicode_InternFromString("");
  g_no_span = PyObject_New(PyObject, &NoSpanType);
  return g_empty != nullptr && g_no_span != nullptr &&
         PyModule_AddObjectRef(module, "NoSpan", reinterpret_cast<PyObject*>(&NoSpanType)) == 0 &&
         PyModule_AddFunctions(module, g_functions) == 0;
}

}  // namespace rubriscope::binding
