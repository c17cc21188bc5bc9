#include "rubriscope/binding/async_call.h"

#include "rubriscope/binding/publish.h"
#include "rubriscope/binding/py_names.h"

namespace rubriscope::binding {

std::uint64_t g_live_async_contexts = 0;

namespace {

// A Python object that stands for a context; its context is null once the call has ended.
struct ContextHandle {
  PyObject_HEAD EvalContext* context;
};

PyTypeObject HandleType = [] {
  PyTypeObject type{};
  type.ob_base = {PyObject_HEAD_INIT(nullptr) 0};
  type.tp_name = "rubriscope._C._ContextHandle";
  type.tp_basicsize = sizeof(ContextHandle);
  type.tp_flags = Py_TPFLAGS_DEFAULT;
  type.tp_doc = "An observed call that coroutines share.";
  type.tp_dealloc = [](PyObject* self) { PyObject_Free(self); };
  return type;
}();

PyObject* g_context_var = nullptr;  // ContextVar of ContextHandle: the observed call of this task

// A new reference to the context's handle, made on first need; the context owns another.
ContextHandle* handle_of(EvalContext* context) {
  if (context->host_handle == nullptr) {
    auto* const handle = PyObject_New(ContextHandle, &HandleType);
    if (handle == nullptr) return nullptr;
    handle->context = context;
    context->host_handle = handle;
    ++g_live_async_contexts;
  }
  auto* const handle = static_cast<ContextHandle*>(context->host_handle);
  Py_INCREF(handle);
  return handle;
}

bool is_ancestor(const EvalContext* candidate, const EvalContext* of) {
  for (const EvalContext* c = of; c != nullptr; c = c->parent()) {
    if (c == candidate) return true;
  }
  return false;
}

// What a coroutine needs to finish one rubric's call.
struct Call {
  PyObject_HEAD PyObject* rubric;
  PyObject* action;
  PyObject* observation;
  ContextHandle* handle;      // the observed call it belongs to, or nullptr
  EvalContext* root_context;  // set when this call owns the context and publishes it
  std::uint64_t start;
  bool recorded;  // finish() has recorded a score
};

Call* as_call(PyObject* self) { return reinterpret_cast<Call*>(self); }
EvalContext* context_of(const Call* call) {
  return call->handle != nullptr ? call->handle->context : nullptr;
}

PyObject* call_start(PyObject* self, PyObject*) {
  as_call(self)->start = ticks();
  Py_RETURN_NONE;
}

// forward() -> a score or an awaitable
PyObject* call_forward(PyObject* self, PyObject*) {
  Call* const call = as_call(self);
  PyNode& node = node_of(call->rubric);
  Result result;
  if (!run_forward(node, node.kind, call->action, call->observation, result)) return nullptr;
  return result.take();
}

// finish(score) -> score
PyObject* call_finish(PyObject* self, PyObject* score) {
  Call* const call = as_call(self);
  Result result;
  result.object = Py_NewRef(score);
  if (!classify(result)) return nullptr;
  EvalContext* const context = context_of(call);
  if (context != nullptr) context->last_tick = ticks();
  if (!finish_call(node_of(call->rubric), result, context, call->start)) return nullptr;
  call->recorded = true;
  return result.take();
}

// fail(): records the exception that is being handled
PyObject* call_fail(PyObject* self, PyObject* error) {
  Call* const call = as_call(self);
  PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(error)), error);
  if (call->recorded) {
    record_hook_failure(node_of(call->rubric), context_of(call));
  } else {
    record_failure(node_of(call->rubric), context_of(call), call->start != 0 ? call->start : ticks());
  }
  PyErr_Clear();
  Py_RETURN_NONE;
}

// enter() -> a token for leave(), or None
PyObject* call_enter(PyObject* self, PyObject*) {
  Call* const call = as_call(self);
  if (call->root_context == nullptr) Py_RETURN_NONE;
  call->root_context->last_tick = ticks();
  return PyContextVar_Set(g_context_var, reinterpret_cast<PyObject*>(call->handle));
}

// leave(token, failed): publishes when this call owns its context. The exception of a failed call is the one
// to see: an observer's is counted and dropped then.
PyObject* call_leave(PyObject* self, PyObject* args) {
  Call* const call = as_call(self);
  PyObject* token = nullptr;
  int failed = 0;
  if (!PyArg_ParseTuple(args, "Op:leave", &token, &failed)) return nullptr;
  if (token != Py_None && PyContextVar_Reset(g_context_var, token) != 0) {
    // Closed from another context (an abandoned coroutine): there is nothing to restore there.
    PyErr_Clear();
  }
  if (call->root_context == nullptr) Py_RETURN_NONE;
  EvalContext* const context = call->root_context;
  call->root_context = nullptr;
  const bool ok = publish_call(node_of(call->rubric), *context, call->action, call->observation);
  close_context(context);
  if (!ok && !failed) return nullptr;
  PyErr_Clear();
  Py_RETURN_NONE;
}

PyObject* call_pre_hooks(PyObject* self, PyObject*) {
  return hooks_list(node_of(as_call(self)->rubric).pre_hooks);
}
PyObject* call_forward_hooks(PyObject* self, PyObject*) {
  return hooks_list(node_of(as_call(self)->rubric).forward_hooks);
}

PyObject* call_get_rubric(PyObject* self, void*) { return Py_NewRef(as_call(self)->rubric); }
PyObject* call_get_action(PyObject* self, void*) { return Py_NewRef(as_call(self)->action); }
PyObject* call_get_observation(PyObject* self, void*) { return Py_NewRef(as_call(self)->observation); }

int call_traverse(PyObject* self, visitproc visit, void* arg) {
  Py_VISIT(as_call(self)->rubric);
  Py_VISIT(as_call(self)->action);
  Py_VISIT(as_call(self)->observation);
  return 0;
}

int call_clear(PyObject* self) {
  Call* const call = as_call(self);
  if (call->root_context != nullptr) {  // the coroutine was never awaited: there is nothing to record
    EvalContext* const context = call->root_context;
    call->root_context = nullptr;
    close_context(context);
  }
  Py_CLEAR(call->rubric);
  Py_CLEAR(call->action);
  Py_CLEAR(call->observation);
  Py_CLEAR(call->handle);
  return 0;
}

void call_dealloc(PyObject* self) {
  PyObject_GC_UnTrack(self);
  call_clear(self);
  PyObject_GC_Del(self);
}

PyMethodDef g_call_methods[] = {
    {"start", call_start, METH_NOARGS, nullptr},
    {"forward", call_forward, METH_NOARGS, nullptr},
    {"finish", call_finish, METH_O, nullptr},
    {"fail", call_fail, METH_O, nullptr},
    {"enter", call_enter, METH_NOARGS, nullptr},
    {"leave", call_leave, METH_VARARGS, nullptr},
    {"pre_hooks", call_pre_hooks, METH_NOARGS, nullptr},
    {"forward_hooks", call_forward_hooks, METH_NOARGS, nullptr},
    {nullptr, nullptr, 0, nullptr},
};

PyGetSetDef g_call_getset[] = {
    {"rubric", call_get_rubric, nullptr, nullptr, nullptr},
    {"action", call_get_action, nullptr, nullptr, nullptr},
    {"observation", call_get_observation, nullptr, nullptr, nullptr},
    {nullptr, nullptr, nullptr, nullptr, nullptr},
};

PyTypeObject CallType = [] {
  PyTypeObject type{};
  type.ob_base = {PyObject_HEAD_INIT(nullptr) 0};
  type.tp_name = "rubriscope._C._Call";
  type.tp_basicsize = sizeof(Call);
  type.tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC;
  type.tp_doc = "The state of one rubric's call that a coroutine finishes.";
  type.tp_dealloc = call_dealloc;
  type.tp_traverse = call_traverse;
  type.tp_clear = call_clear;
  type.tp_methods = g_call_methods;
  type.tp_getset = g_call_getset;
  return type;
}();

}  // namespace

EvalContext* active_async_context() {
  EvalContext* const threads = current_context();
  PyObject* value = nullptr;
  if (PyContextVar_Get(g_context_var, Py_None, &value) != 0) {
    PyErr_Clear();
    return threads;
  }
  EvalContext* const tasks = value != Py_None ? reinterpret_cast<ContextHandle*>(value)->context : nullptr;
  Py_DECREF(value);
  if (tasks == nullptr) return threads;
  // Both: the one that was opened inside the other.
  return threads == nullptr || is_ancestor(threads, tasks) ? tasks : threads;
}

PyObject* make_coroutine(PyNode& node, PyObject* action, PyObject* observation, EvalContext* context,
                         EvalContext* root_context, std::uint64_t start, PyObject* awaitable) {
  static PyObject* run = nullptr;
  static PyObject* drive = nullptr;
  PyObject* const function = awaitable == nullptr ? import_once(run, "rubriscope._async", "run")
                                                  : import_once(drive, "rubriscope._async", "drive");
  if (function == nullptr) return nullptr;
  context = EvalContext::open(context);
  ContextHandle* const handle = context != nullptr ? handle_of(context) : nullptr;
  if (context != nullptr && handle == nullptr) return nullptr;
  auto* const call = PyObject_GC_New(Call, &CallType);
  if (call == nullptr) {
    Py_XDECREF(handle);
    return nullptr;
  }
  call->rubric = Py_NewRef(node.owner);
  call->action = Py_NewRef(action);
  call->observation = Py_NewRef(observation);
  call->handle = handle;
  call->root_context = nullptr;
  call->start = start;
  call->recorded = false;
  auto* const object = reinterpret_cast<PyObject*>(call);
  PyObject_GC_Track(object);
  PyObject* const coroutine = awaitable == nullptr
                                  ? PyObject_CallOneArg(function, object)
                                  : PyObject_CallFunctionObjArgs(function, object, awaitable, nullptr);
  if (coroutine != nullptr) call->root_context = root_context;
  Py_DECREF(object);
  return coroutine;
}

void close_context(EvalContext* context) {
  if (context->host_handle != nullptr) {
    auto* const handle = static_cast<ContextHandle*>(context->host_handle);
    handle->context = nullptr;
    context->host_handle = nullptr;
    --g_live_async_contexts;
    Py_DECREF(handle);
  }
  auto* const annotations = static_cast<PyObject*>(context->host_annotations);
  auto* const pending = static_cast<PyObject*>(context->host_pending);
  context->host_annotations = nullptr;
  context->host_pending = nullptr;
  Py_XDECREF(annotations);
  Py_XDECREF(pending);
  EvalContext::release(context);
}

bool add_async_types(PyObject* module) {
  if (PyType_Ready(&HandleType) < 0 || PyType_Ready(&CallType) < 0) return false;
  g_context_var = PyContextVar_New("rubriscope_observed_call", nullptr);
  return g_context_var != nullptr &&
         PyModule_AddObjectRef(module, "_Call", reinterpret_cast<PyObject*>(&CallType)) == 0;
}

}  // namespace rubriscope::binding
