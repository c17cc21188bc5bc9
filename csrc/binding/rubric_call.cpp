// Calling a rubric: the hot path. Scores stay unboxed doubles between containers and their children.
#include <cmath>

#include "rubriscope/binding/async_call.h"
#include "rubriscope/binding/native.h"
#include "rubriscope/binding/publish.h"
#include "rubriscope/binding/py_names.h"
#include "rubriscope/binding/py_node.h"
#include "rubriscope/rubric/rules.h"

namespace rubriscope::binding {

namespace {

// Keeps an object alive while Python code runs that might drop the last other reference.
class Keep {
 public:
  explicit Keep(PyObject* object) : object_(object) { Py_INCREF(object_); }
  ~Keep() { Py_DECREF(object_); }
  Keep(const Keep&) = delete;
  Keep& operator=(const Keep&) = delete;

 private:
  PyObject* object_;
};

// ---- Leaves

// Takes over what forward() gave. False with an exception set.
inline bool take_given(PyObject* given, Result& out) {
  if (given == nullptr) [[unlikely]] {
    return false;
  }
  out.clear();
  out.object = given;
  if (PyFloat_CheckExact(given)) [[likely]] {
    out.value = PyFloat_AS_DOUBLE(given);
    return true;
  }
  return classify(out);
}

// forward() as a plain function of the class.
inline bool call_function(PyNode& node, PyObject* action, PyObject* observation, Result& out) {
  PyObject* arguments[] = {node.owner, action, observation};
  return take_given(
      reinterpret_cast<PyFunctionObject*>(node.forward)->vectorcall(node.forward, arguments, 3, nullptr),
      out);
}

bool call_python_forward(PyNode& node, PyObject* action, PyObject* observation, Result& out) {
  if (node.forward_is_function) return call_function(node, action, observation, out);
  static PyObject* name = nullptr;
  PyObject* arguments[] = {node.owner, action, observation};
  return take_given(PyObject_VectorcallMethod(interned(name, "forward"), arguments, 3, nullptr), out);
}

// What most calls end with: a plain number, and at most one observed call to note it in. False: not handled.
inline bool finish_plain(PyNode& node, const Result& result, EvalContext* context, std::uint64_t start) {
  if (result.kind != Result::Kind::number || node.last_object != nullptr) return false;
  if (result.object != nullptr && !PyFloat_CheckExact(result.object)) return false;
  if (context == nullptr) {
    if (node.is_member.load(std::memory_order_relaxed)) return false;
  } else {
    if (!context->is_alone() || !std::isfinite(result.value)) return false;
    const std::uint64_t end = node.kind == NodeKind::leaf ? ticks() : context->last_tick;
    if (!context->record(node, result.value, Status::scored, start, end) &&
        node.is_member.load(std::memory_order_relaxed)) {
      return false;
    }
    context->last_tick = end;
  }
  node.has_last = true;
  node.last_value = result.value;
  return true;
}

// forward() gave an awaitable: the caller gets the coroutine that finishes the call.
[[gnu::cold, gnu::noinline]] bool suspend(PyNode& node, PyObject* action, PyObject* observation,
                                          EvalContext* context, EvalContext* root, std::uint64_t start,
                                          Result& out) {
  PyObject* const coroutine = make_coroutine(node, action, observation, context, root, start, out.object);
  if (coroutine == nullptr) {
    out.clear();
    return false;
  }
  Py_DECREF(out.object);
  out.object = coroutine;
  return true;
}

bool run_container(PyNode& node, NodeKind kind, PyObject* action, PyObject* observation, Result& out);

// A call without hooks, strict or an async forward(). `root` is the context when this node owns it.
inline bool call_plain(PyNode& node, PyObject* action, PyObject* observation, EvalContext* context,
                       EvalContext* root, Result& out) {
  const std::uint64_t start = context != nullptr ? context->last_tick : 0;
  const bool ok = node.kind == NodeKind::leaf ? call_function(node, action, observation, out)
                                              : run_container(node, node.kind, action, observation, out);
  if (!ok) [[unlikely]] {
    record_failure(node, context, start);
    return false;
  }
  if (finish_plain(node, out, context, start)) return true;
  if (out.kind == Result::Kind::awaitable)
    return suspend(node, action, observation, context, root, start, out);
  return finish_call(node, out, context, start);
}

// ---- Containers
//
// A child's call may change the container: nothing of its list of children is held across one.

// A child whose class overrides __call__ is called as Python would.
bool call_child(PyNode& child, PyObject* action, PyObject* observation, Result& out) {
  if (is_fresh(child) && !child.special && child.observation() == nullptr && g_live_async_contexts == 0) {
    return call_plain(child, action, observation, current_context(), nullptr, out);
  }
  if (Py_TYPE(child.owner)->tp_call == rubric_call) return call_node(child, action, observation, out);
  PyObject* const given = PyObject_CallFunctionObjArgs(child.owner, action, observation, nullptr);
  if (given == nullptr) return false;
  out.clear();
  out.object = given;
  return classify(out);
}

// Hands a container that met an awaitable to its Python continuation (rubriscope/_async.py).
[[gnu::cold, gnu::noinline]] bool continue_async(const char* function, PyObject* continuation_args,
                                                 Result& out) {
  if (continuation_args == nullptr) return false;
  PyObject* cache = nullptr;
  PyObject* const callable = import_once(cache, "rubriscope._async", function);
  PyObject* const coroutine =
      callable != nullptr ? PyObject_CallObject(callable, continuation_args) : nullptr;
  Py_XDECREF(callable);
  Py_DECREF(continuation_args);
  if (coroutine == nullptr) return false;
  out.clear();
  out.object = coroutine;
  out.kind = Result::Kind::awaitable;
  return true;
}

[[gnu::cold, gnu::noinline]] bool not_a_number(PyNode& container, const PyNode& child, const Result& result) {
  std::string name = "removed meanwhile";  // by its own forward(), say
  for (const auto& entry : container.children()) {
    if (entry.node == &child) name = entry.name;
  }
  PyErr_Format(PyExc_TypeError, "%s: child '%s' (%s) gave %s, expected a number",
               container.class_name().c_str(), name.c_str(), child.class_name().c_str(),
               Py_TYPE(result.object)->tp_name);
  return false;
}

// Combines through rubriscope/_tensors.py, where a score must stay on its device or has several numbers.
[[gnu::cold, gnu::noinline]] bool combine_tensors(const char* function, PyObject* arguments, Result& out) {
  if (arguments == nullptr) return false;
  PyObject* cache = nullptr;
  PyObject* const callable = import_once(cache, "rubriscope._tensors", function);
  PyObject* const combined = callable != nullptr ? PyObject_CallObject(callable, arguments) : nullptr;
  Py_XDECREF(callable);
  Py_DECREF(arguments);
  if (combined == nullptr) return false;
  out.clear();
  out.object = combined;
  return classify(out);
}

[[gnu::noinline]] bool run_sequential(PyNode& node, PyObject* action, PyObject* observation, Result& out) {
  out.set_number(rules::kEmptySequence);
  Result deferred;  // the combination of the tensors so far that could not be tested for 0
  Py_ssize_t item = -1;
  for (std::size_t i = 0; i < node.children().size(); ++i) {
    if (!node.children()[i].item) continue;
    ++item;
    PyNode& child = py(*node.children()[i].node);
    const Keep keep(child.owner);
    if (!call_child(child, action, observation, out)) {
      deferred.clear();
      return false;
    }
    switch (out.kind) {
      case Result::Kind::awaitable: {
        PyObject* const sofar = deferred.object != nullptr ? deferred.object : Py_None;
        PyObject* const arguments =
            Py_BuildValue("(OnOOOO)", node.owner, item, out.object, sofar, action, observation);
        deferred.clear();
        return continue_async("resume_sequential", arguments, out);
      }
      case Result::Kind::number:
        if (rules::stops_sequence(out.value)) {
          deferred.clear();
          out.set_number(0.0);
          return true;
        }
        if (deferred.object == nullptr) break;
        [[fallthrough]];
      case Result::Kind::deferred: {
        PyObject* const latest = out.take();
        PyObject* const arguments =
            latest == nullptr
                ? nullptr
                : Py_BuildValue("(ON)", deferred.object != nullptr ? deferred.object : Py_None, latest);
        deferred.clear();
        if (!combine_tensors("sequence", arguments, out)) return false;
        deferred.object = out.object;
        Py_XINCREF(deferred.object);
        break;
      }
      case Result::Kind::invalid:
        break;
    }
  }
  deferred.clear();
  return true;
}

[[gnu::noinline]] bool run_gate(PyNode& node, PyObject* action, PyObject* observation, Result& out) {
  for (const auto& entry : node.children()) {
    if (!entry.item) continue;
    PyNode& child = py(*entry.node);
    const Keep keep(child.owner);
    if (!call_child(child, action, observation, out)) return false;
    switch (out.kind) {
      case Result::Kind::number:
        if (!rules::passes_gate(out.value, node.threshold)) out.set_number(0.0);
        return true;
      case Result::Kind::invalid:
        out.set_number(0.0);
        return true;
      case Result::Kind::deferred:
        return combine_tensors("gate", Py_BuildValue("(Od)", out.object, node.threshold), out);
      case Result::Kind::awaitable:
        return continue_async("resume_gate", Py_BuildValue("(OO)", node.owner, out.object), out);
    }
  }
  PyErr_SetString(PyExc_ValueError, "Gate has no rubric: its child 'rubric' was removed");
  return false;
}

// The results of all children so far as a list; on an error closes the coroutines among them.
[[gnu::cold, gnu::noinline]] void close_awaitables(PyObject* results) {
  PyObject *type, *value, *traceback;
  PyErr_Fetch(&type, &value, &traceback);
  for (Py_ssize_t i = 0; i < PyList_GET_SIZE(results); ++i) {
    PyObject* const item = PyList_GET_ITEM(results, i);
    if (!PyCoro_CheckExact(item)) continue;
    static PyObject* function = nullptr;
    PyObject* const close = import_once(function, "rubriscope._async", "close");
    PyObject* const closed = close != nullptr ? PyObject_CallOneArg(close, item) : nullptr;
    if (closed == nullptr) PyErr_WriteUnraisable(item);
    Py_XDECREF(closed);
  }
  PyErr_Restore(type, value, traceback);
}

// The general weighted sum: child `begin` gave an awaitable or a tensor, `first`. `total` is the sum of those
// before it.
[[gnu::cold, gnu::noinline]] bool run_weighted_sum_objects(PyNode& node, std::size_t begin, double total,
                                                           Result& first, double first_weight,
                                                           PyObject* action, PyObject* observation,
                                                           Result& out) {
  PyObject* const results = PyList_New(0);
  PyObject* const weights = PyList_New(0);
  bool any_awaitable = false;
  const auto append = [&](Result& result, double weight) {
    any_awaitable |= result.kind == Result::Kind::awaitable;
    PyObject* const object = result.take();
    PyObject* const boxed = PyFloat_FromDouble(weight);
    const bool ok = object != nullptr && boxed != nullptr && PyList_Append(results, object) == 0 &&
                    PyList_Append(weights, boxed) == 0;
    Py_XDECREF(object);
    Py_XDECREF(boxed);
    return ok;
  };
  bool ok = results != nullptr && weights != nullptr && append(first, first_weight);
  for (std::size_t i = begin + 1; ok && i < node.children().size(); ++i) {
    if (!node.children()[i].item) continue;
    PyNode& child = py(*node.children()[i].node);
    const double weight = node.children()[i].weight;
    const Keep keep(child.owner);
    ok = call_child(child, action, observation, out);
    if (ok && out.kind == Result::Kind::invalid && weight != 0.0) ok = not_a_number(node, child, out);
    ok = ok && append(out, weight);
  }
  if (ok) {
    PyObject* const arguments = Py_BuildValue("(dOO)", total, results, weights);
    ok = any_awaitable ? continue_async("resume_weighted_sum", arguments, out)
                       : combine_tensors("weighted_sum", arguments, out);
  }
  if (!ok && results != nullptr) close_awaitables(results);
  Py_XDECREF(results);
  Py_XDECREF(weights);
  return ok;
}

[[gnu::noinline]] bool run_weighted_sum(PyNode& node, PyObject* action, PyObject* observation, Result& out) {
  double total = 0.0;
  Result part;
  for (std::size_t i = 0; i < node.children().size(); ++i) {
    if (!node.children()[i].item) continue;
    PyNode& child = py(*node.children()[i].node);
    const double weight = node.children()[i].weight;
    const Keep keep(child.owner);
    if (!call_child(child, action, observation, part)) return false;
    if (part.kind == Result::Kind::number) {
      total += rules::weighted(part.value, weight);
      part.clear();
      continue;
    }
    if (part.kind == Result::Kind::invalid) {
      if (weight != 0.0) return not_a_number(node, child, part);
      part.clear();
      continue;
    }
    return run_weighted_sum_objects(node, i, total, part, weight, action, observation, out);
  }
  out.set_number(total);
  return true;
}

bool run_container(PyNode& node, NodeKind kind, PyObject* action, PyObject* observation, Result& out) {
  if (Py_EnterRecursiveCall(" in a rubric tree") != 0) return false;
  const bool ok = kind == NodeKind::weighted_sum ? run_weighted_sum(node, action, observation, out)
                  : kind == NodeKind::gate       ? run_gate(node, action, observation, out)
                                                 : run_sequential(node, action, observation, out);
  Py_LeaveRecursiveCall();
  return ok;
}

// ---- Recording

[[gnu::cold, gnu::noinline]] std::string exception_text() {
  PyObject *type, *value, *traceback;
  PyErr_Fetch(&type, &value, &traceback);
  PyErr_NormalizeException(&type, &value, &traceback);
  std::string text = type != nullptr ? reinterpret_cast<PyTypeObject*>(type)->tp_name : "error";
  PyObject* const message = value != nullptr ? PyObject_Str(value) : nullptr;
  Py_ssize_t size = 0;
  const char* const utf8 = message != nullptr ? PyUnicode_AsUTF8AndSize(message, &size) : nullptr;
  if (utf8 != nullptr && size > 0) text += ": " + std::string(utf8, static_cast<std::size_t>(size));
  PyErr_Clear();
  Py_XDECREF(message);
  PyErr_Restore(type, value, traceback);
  if (text.size() > EvalContext::kMaxReasonBytes) {
    std::size_t end = EvalContext::kMaxReasonBytes;
    while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
    text.resize(end);
  }
  return text;
}

[[gnu::cold, gnu::noinline]] void note_score_details(PyNode& node, EvalContext& context, PyObject* score) {
  static PyObject* explanation_name = nullptr;
  static PyObject* function = nullptr;
  PyObject* const explanation = PyObject_GetAttr(score, interned(explanation_name, "explanation"));
  if (explanation != nullptr && explanation != Py_None) {
    PyObject* const text = PyObject_Str(explanation);
    Py_ssize_t size = 0;
    const char* const utf8 = text != nullptr ? PyUnicode_AsUTF8AndSize(text, &size) : nullptr;
    if (utf8 != nullptr) {
      for (EvalContext* c = EvalContext::open(&context); c != nullptr; c = c->parent()) {
        c->note(node, ExtraTag::explanation, {utf8, static_cast<std::size_t>(size)});
      }
    }
    Py_XDECREF(text);
  }
  Py_XDECREF(explanation);
  // rubriscope._details.metadata_json: the score's metadata as a JSON object, None when there is none.
  PyObject* const callable = import_once(function, "rubriscope._details", "metadata_json");
  PyObject* const json = callable != nullptr ? PyObject_CallOneArg(callable, score) : nullptr;
  Py_ssize_t size = 0;
  const char* const utf8 =
      json != nullptr && json != Py_None ? PyUnicode_AsUTF8AndSize(json, &size) : nullptr;
  if (utf8 != nullptr) {
    for (EvalContext* c = EvalContext::open(&context); c != nullptr; c = c->parent()) {
      c->note(node, ExtraTag::score_metadata, {utf8, static_cast<std::size_t>(size)});
    }
  }
  Py_XDECREF(json);
  if (PyErr_Occurred() != nullptr) PyErr_WriteUnraisable(score);
}

}  // namespace

namespace {

// The number in a tensor on the CPU. float(tensor) would warn of every one that requires a gradient.
[[gnu::noinline]] bool read_tensor(Result& result) {
  static PyObject* name = nullptr;
  PyObject* const item = PyObject_CallMethodNoArgs(result.object, interned(name, "item"));
  PyObject* const number = item != nullptr ? PyNumber_Float(item) : nullptr;
  Py_XDECREF(item);
  if (number == nullptr) {
    if (item == nullptr || !PyErr_ExceptionMatches(PyExc_TypeError)) {
      result.clear();
      return false;
    }
    PyErr_Clear();  // a complex number
    result.kind = Result::Kind::invalid;
    return true;
  }
  result.value = PyFloat_AS_DOUBLE(number);
  Py_DECREF(number);
  return true;
}

}  // namespace

bool classify(Result& result) {
  PyObject* const object = result.object;
  result.kind = Result::Kind::number;
  if (PyFloat_Check(object)) {
    result.value = PyFloat_AS_DOUBLE(object);
    return true;
  }
  if (PyLong_Check(object)) {
    result.value = PyLong_AsDouble(object);
    if (result.value == -1.0 && PyErr_Occurred() != nullptr) {
      result.clear();
      return false;
    }
    return true;
  }
  if (PyCoro_CheckExact(object)) {
    result.kind = Result::Kind::awaitable;
    return true;
  }
  PyTypeObject* const tensor = tensor_type();
  if (tensor != nullptr && PyObject_TypeCheck(object, tensor)) {
    static PyObject* function = nullptr;
    PyObject* const readable = import_once(function, "rubriscope._tensors", "is_readable");
    PyObject* const answer = readable != nullptr ? PyObject_CallOneArg(readable, object) : nullptr;
    if (answer == nullptr) {
      result.clear();
      return false;
    }
    const bool is_readable = answer == Py_True;
    Py_DECREF(answer);
    if (!is_readable) {
      result.kind = Result::Kind::deferred;
      return true;
    }
    return read_tensor(result);
  } else if (Py_TYPE(object)->tp_as_async != nullptr && Py_TYPE(object)->tp_as_async->am_await != nullptr) {
    result.kind = Result::Kind::awaitable;
    return true;
  }
  PyNumberMethods* const as_number = Py_TYPE(object)->tp_as_number;
  if (as_number == nullptr || (as_number->nb_float == nullptr && as_number->nb_index == nullptr)) {
    result.kind = Result::Kind::invalid;
    return true;
  }
  PyObject* const number = PyNumber_Float(object);
  if (number == nullptr) {
    if (!PyErr_ExceptionMatches(PyExc_TypeError) && !PyErr_ExceptionMatches(PyExc_ValueError)) {
      result.clear();
      return false;
    }
    PyErr_Clear();
    result.kind = Result::Kind::invalid;
    return true;
  }
  result.value = PyFloat_AS_DOUBLE(number);
  Py_DECREF(number);
  return true;
}

bool run_hooks(const std::vector<Hook>& hooks, PyObject* const* arguments, std::size_t count) {
  // A hook may add or remove hooks: run those that were there when the call began.
  std::vector<PyObject*> callables;
  callables.reserve(hooks.size());
  for (const auto& hook : hooks) {
    Py_INCREF(hook.callable);
    callables.push_back(hook.callable);
  }
  bool ok = true;
  for (PyObject* const callable : callables) {
    if (ok) {
      PyObject* const ignored = PyObject_Vectorcall(callable, arguments, count, nullptr);
      ok = ignored != nullptr;
      Py_XDECREF(ignored);
    }
    Py_DECREF(callable);
  }
  return ok;
}

bool run_forward(PyNode& node, NodeKind kind, PyObject* action, PyObject* observation, Result& out) {
  return kind == NodeKind::leaf ? call_python_forward(node, action, observation, out)
                                : run_container(node, kind, action, observation, out);
}

void record_failure(PyNode& node, EvalContext* context, std::uint64_t start) {
  record_outcome(node, context, std::numeric_limits<double>::quiet_NaN(), Status::failed,
                 context != nullptr ? exception_text() : std::string(), start, ticks());
}

void record_hook_failure(PyNode& node, EvalContext* context) {
  if (context != nullptr) overrule_outcome(node, context, exception_text());
}

bool finish_call(PyNode& node, Result& result, EvalContext* context, std::uint64_t start) {
  const bool finite = result.kind == Result::Kind::number && std::isfinite(result.value);
  node.has_last = true;
  node.last_value = result.value;
  PyObject* const previous = node.last_object;
  node.last_object = nullptr;
  if (result.object != nullptr && !PyFloat_CheckExact(result.object)) {
    Py_INCREF(result.object);
    node.last_object = result.object;
  }
  Py_XDECREF(previous);

  if (node.strict && !finite && result.kind != Result::Kind::deferred) {
    PyObject* const shown = result.take();
    if (shown != nullptr) {
      PyErr_Format(PyExc_ValueError, "%s (strict) gave %R, expected a finite number",
                   node.class_name().c_str(), shown);
      Py_DECREF(shown);
    }
    record_failure(node, context, start);
    return false;
  }
  if (context == nullptr) {
    record_outcome(node, nullptr, result.value, Status::scored, {}, 0, 0);
    return true;
  }
  const std::uint64_t end =
      node.kind == NodeKind::leaf || context->last_tick == 0 ? ticks() : context->last_tick;
  if (finite) {
    record_outcome(node, context, result.value, Status::scored, {}, start, end);
  } else if (result.kind == Result::Kind::number) {
    record_outcome(node, context, std::numeric_limits<double>::quiet_NaN(), Status::failed,
                   not_finite_reason(result.value), start, end);
  } else if (result.kind == Result::Kind::deferred) {
    record_outcome(node, context, std::numeric_limits<double>::quiet_NaN(), Status::pending, {}, start, end);
    defer_score(node, context, result.object);
  } else {
    record_outcome(node, context, std::numeric_limits<double>::quiet_NaN(), Status::failed,
                   std::string("gave ") + Py_TYPE(result.object)->tp_name + ", not a number", start, end);
  }
  if (result.object != nullptr && !PyFloat_CheckExact(result.object)) {
    PyTypeObject* const score = score_type();
    if (score == nullptr) {
      result.clear();
      return false;
    }
    if (PyObject_TypeCheck(result.object, score)) note_score_details(node, *context, result.object);
  }
  return true;
}

namespace {

bool run_forward_hooks(PyNode& node, PyObject* action, PyObject* observation, Result& result) {
  PyObject* const score = result.take();
  if (score == nullptr) return false;
  PyObject* arguments[] = {node.owner, action, observation, score};
  const bool ok = run_hooks(node.forward_hooks, arguments, 4);
  if (ok) {
    result.object = score;
  } else {
    Py_DECREF(score);
  }
  return ok;
}

// A call with hooks, strict, or a forward() that is no plain function.
[[gnu::noinline]] bool call_special(PyNode& node, PyObject* action, PyObject* observation,
                                    EvalContext* context, EvalContext* root, Result& out) {
  if (node.forward_is_async || node.async_hooks != 0) {
    PyObject* const coroutine = make_coroutine(node, action, observation, context, root, 0, nullptr);
    if (coroutine == nullptr) return false;
    out.clear();
    out.object = coroutine;
    out.kind = Result::Kind::awaitable;
    return true;
  }
  const std::uint64_t start = context != nullptr ? context->last_tick : 0;
  if (!node.pre_hooks.empty()) {
    PyObject* arguments[] = {node.owner, action, observation};
    if (!run_hooks(node.pre_hooks, arguments, 3)) {
      record_failure(node, context, start);
      return false;
    }
  }
  if (!run_forward(node, node.kind, action, observation, out)) {
    record_failure(node, context, start);
    return false;
  }
  if (out.kind == Result::Kind::awaitable) {
    return suspend(node, action, observation, context, root, start, out);
  }
  if (!finish_call(node, out, context, start)) return false;
  if (!node.forward_hooks.empty() && !run_forward_hooks(node, action, observation, out)) {
    record_hook_failure(node, context);
    return false;
  }
  return true;
}

// One node's call inside a context (or none). `root` is the context when this node owns it.
inline bool call_in_context(PyNode& node, PyObject* action, PyObject* observation, EvalContext* context,
                            EvalContext* root, Result& out) {
  if (!is_fresh(node) && !refresh_forward(node)) return false;
  return node.special ? call_special(node, action, observation, context, root, out)
                      : call_plain(node, action, observation, context, root, out);
}

// A call that no other call is around: without the GIL where it needs no Python, else the usual way.
[[gnu::noinline]] bool call_outermost(PyNode& node, PyObject* action, PyObject* observation,
                                      EvalContext* context, Result& out) {
  NativeTree tree;
  if (!tree.take(node)) {
    tree.release();
    return call_in_context(node, action, observation, context, context, out);
  }
  NativeValue native_action, native_observation;
  for (const auto& [value, object] :
       {std::pair{&native_action, action}, std::pair{&native_observation, observation}}) {
    switch (value->take(object)) {
      case NativeValue::Taken::yes:
        break;
      case NativeValue::Taken::no:
        return call_in_context(node, action, observation, context, context, out);
      case NativeValue::Taken::error:
        record_failure(node, context, context != nullptr ? context->last_tick : 0);
        return false;
    }
  }
  if (!tree.takes(native_action.value(), native_observation.value())) {
    return call_in_context(node, action, observation, context, context, out);
  }
  PyThreadState* const state = PyEval_SaveThread();
  try {
    const double score = tree.call(native_action.value(), native_observation.value(), context);
    PyEval_RestoreThread(state);
    tree.count_unattributed();
    out.set_number(score);
    return true;
  } catch (...) {
    PyEval_RestoreThread(state);
    tree.count_unattributed();
    raise_current_exception();
    return false;
  }
}

bool call_observed_root(PyNode& node, PyObject* action, PyObject* observation, Result& out) {
  EvalContext*& current = current_context();
  EvalContext* const outer = current;
  EvalContext* const parent = active_context();
  EvalContext* context = nullptr;
  try {
    context = node.observation()->open_call(node, parent);
  } catch (...) {
    raise_current_exception();
    return contain_unobserved(node) && call_in_context(node, action, observation, parent, nullptr, out);
  }
  current = context;
  context->last_tick = ticks();
  const bool ok = parent == nullptr && g_any_native
                      ? call_outermost(node, action, observation, context, out)
                      : call_in_context(node, action, observation, context, context, out);
  current_context() = outer;
  if (ok && out.kind == Result::Kind::awaitable) return true;  // the coroutine owns the context now
  const bool published = publish_call(node, *context, action, observation);
  close_context(context);
  if (ok && !published) out.clear();
  return ok && published;
}

// A call where coroutines of observed calls are alive. Their context is this thread's for as long as the call
// runs, and held: a thread may outlive the call that started it.
[[gnu::noinline]] bool call_in_task(PyNode& node, PyObject* action, PyObject* observation, Result& out) {
  EvalContext* const outer = current_context();
  EvalContext* const context = active_context();
  if (context == nullptr && g_any_native) return call_outermost(node, action, observation, nullptr, out);
  if (context == outer) return call_in_context(node, action, observation, context, nullptr, out);
  context->hold();
  current_context() = context;
  const bool ok = call_in_context(node, action, observation, context, nullptr, out);
  current_context() = outer;
  EvalContext::drop(context);
  return ok;
}

}  // namespace

bool call_node(PyNode& node, PyObject* action, PyObject* observation, Result& out) {
  if (node.observation() != nullptr) return call_observed_root(node, action, observation, out);
  if (g_live_async_contexts != 0) return call_in_task(node, action, observation, out);
  EvalContext* const context = current_context();
  if (context == nullptr && g_any_native) return call_outermost(node, action, observation, nullptr, out);
  return call_in_context(node, action, observation, context, nullptr, out);
}

PyObject* rubric_vectorcall(PyObject* self, PyObject* const* args, std::size_t nargsf, PyObject* names) {
  const Py_ssize_t given = PyVectorcall_NARGS(nargsf);
  if (names == nullptr && given == 2 && Py_TYPE(self)->tp_call == rubric_call) [[likely]] {
    Result result;
    return call_node(node_of(self), args[0], args[1], result) ? result.take() : nullptr;
  }
  PyObject* const tuple = PyTuple_New(given);
  PyObject* const kwargs = names != nullptr ? PyDict_New() : nullptr;
  bool ok = tuple != nullptr && (names == nullptr || kwargs != nullptr);
  for (Py_ssize_t i = 0; ok && i < given; ++i) PyTuple_SET_ITEM(tuple, i, Py_NewRef(args[i]));
  for (Py_ssize_t i = 0; ok && names != nullptr && i < PyTuple_GET_SIZE(names); ++i) {
    ok = PyDict_SetItem(kwargs, PyTuple_GET_ITEM(names, i), args[given + i]) == 0;
  }
  PyObject* const result = ok ? Py_TYPE(self)->tp_call(self, tuple, kwargs) : nullptr;
  Py_XDECREF(tuple);
  Py_XDECREF(kwargs);
  return result;
}

PyObject* rubric_call(PyObject* self, PyObject* args, PyObject* kwargs) {
  PyObject* action = nullptr;
  PyObject* observation = nullptr;
  if (kwargs == nullptr && PyTuple_GET_SIZE(args) == 2) {
    action = PyTuple_GET_ITEM(args, 0);
    observation = PyTuple_GET_ITEM(args, 1);
  } else {
    static const char* names[] = {"action", "observation", nullptr};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO:Rubric", const_cast<char**>(names), &action,
                                     &observation)) {
      return nullptr;
    }
  }
  Result result;
  if (!call_node(node_of(self), action, observation, result)) return nullptr;
  return result.take();
}

}  // namespace rubriscope::binding
