// The Python type `SightFunction`: a function whose calls are observed. A callable with vectorcall that binds
// as functions do; what functools.update_wrapper() copies lies in its dict.
#include <Python.h>

#include <cstddef>

#include "rubriscope/binding/sight.h"

namespace rubriscope::binding {

namespace {

struct SightFunction {
  PyObject_HEAD vectorcallfunc vectorcall;
  PyObject* wrapped;
  PyObject* dict;
  PyObject* weak;
  SightPoint* point;
  PyObject* tokens;  ///< what supply_tokens() takes, or nullptr
};

SightFunction& of(PyObject* self) { return *reinterpret_cast<SightFunction*>(self); }

PyObject* observed_call(PyObject* self, PyObject* const* args, std::size_t flagged, PyObject* keywords) {
  PyObject* const wrapped = of(self).wrapped;
  const SightPoint& point = *of(self).point;
  if (!point.enabled || (point.injections != nullptr && sight_probing())) {
    return PyObject_Vectorcall(wrapped, args, flagged, keywords);
  }
  SightFrame frame{};
  begin_frame(frame, *of(self).point);
  push_frame(frame);
  PyObject* const result = PyObject_Vectorcall(wrapped, args, flagged, keywords);
  pop_frame(frame);
  const SightCall call{args, static_cast<std::size_t>(PyVectorcall_NARGS(flagged)), keywords, result};
  if (result != nullptr) {
    if (of(self).tokens != nullptr) supply_tokens(frame, of(self).tokens, result);
    if (end_frame(frame, nullptr, call)) return result;
    Py_DECREF(result);
    return nullptr;
  }
  PyObject* type = nullptr;
  PyObject* value = nullptr;
  PyObject* trace = nullptr;
  PyErr_Fetch(&type, &value, &trace);
  PyErr_NormalizeException(&type, &value, &trace);
  end_frame(frame, value, call);
  PyErr_Restore(type, value, trace);
  return nullptr;
}

// SightFunction(function, point, tokens=None)
PyObject* sight_new(PyTypeObject* type, PyObject* args, PyObject* kwargs) {
  PyObject* wrapped = nullptr;
  PyObject* capsule = nullptr;
  PyObject* tokens = Py_None;
  if (kwargs != nullptr && PyDict_Size(kwargs) != 0) {
    return PyErr_Format(PyExc_TypeError, "SightFunction() takes no keywords");
  }
  if (!PyArg_ParseTuple(args, "OO|O:SightFunction", &wrapped, &capsule, &tokens)) return nullptr;
  if (!PyCallable_Check(wrapped)) return PyErr_Format(PyExc_TypeError, "%R is not callable", wrapped);
  auto* const point = static_cast<SightPoint*>(PyCapsule_GetPointer(capsule, "rubriscope.SightPoint"));
  if (point == nullptr) return nullptr;
  PyObject* const self = type->tp_alloc(type, 0);
  if (self == nullptr) return nullptr;
  of(self).vectorcall = observed_call;
  of(self).wrapped = Py_NewRef(wrapped);
  of(self).point = point;
  of(self).tokens = tokens != Py_None ? Py_NewRef(tokens) : nullptr;
  return self;
}

int sight_traverse(PyObject* self, visitproc visit, void* arg) {
  Py_VISIT(of(self).wrapped);
  Py_VISIT(of(self).dict);
  Py_VISIT(of(self).tokens);
  return 0;
}

int sight_clear(PyObject* self) {
  Py_CLEAR(of(self).wrapped);
  Py_CLEAR(of(self).dict);
  Py_CLEAR(of(self).tokens);
  return 0;
}

void sight_dealloc(PyObject* self) {
  PyObject_GC_UnTrack(self);
  if (of(self).weak != nullptr) PyObject_ClearWeakRefs(self);
  sight_clear(self);
  Py_TYPE(self)->tp_free(self);
}

PyObject* sight_get(PyObject* self, PyObject* object, PyObject*) {
  if (object == nullptr || object == Py_None) return Py_NewRef(self);
  return PyMethod_New(self, object);
}

PyObject* sight_repr(PyObject* self) {
  return PyUnicode_FromFormat("<sight point %s of %R>", of(self).point->name().c_str(), of(self).wrapped);
}

// Pickled as functions are: by name.
PyObject* sight_reduce(PyObject* self, PyObject*) { return PyObject_GetAttrString(self, "__qualname__"); }

PyMethodDef g_methods[] = {
    {"__reduce__", sight_reduce, METH_NOARGS, nullptr},
    {nullptr, nullptr, 0, nullptr},
};

PyGetSetDef g_getset[] = {
    {"__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, nullptr, nullptr},
    {nullptr, nullptr, nullptr, nullptr, nullptr},
};

PyTypeObject g_type = [] {
  PyTypeObject type{};
  type.ob_base = {PyObject_HEAD_INIT(nullptr) 0};
  type.tp_name = "rubriscope.SightFunction";
  type.tp_basicsize = sizeof(SightFunction);
  type.tp_dealloc = sight_dealloc;
  type.tp_repr = sight_repr;
  type.tp_call = PyVectorcall_Call;
  type.tp_vectorcall_offset = offsetof(SightFunction, vectorcall);
  type.tp_flags =
      Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_METHOD_DESCRIPTOR;
  type.tp_traverse = sight_traverse;
  type.tp_clear = sight_clear;
  type.tp_weaklistoffset = offsetof(SightFunction, weak);
  type.tp_dictoffset = offsetof(SightFunction, dict);
  type.tp_methods = g_methods;
  type.tp_getset = g_getset;
  type.tp_descr_get = sight_get;
  type.tp_new = sight_new;
  type.tp_free = PyObject_GC_Del;
  return type;
}();

}  // namespace

bool add_sight_type(PyObject* module) {
  return PyType_Ready(&g_type) == 0 &&
         PyModule_AddObjectRef(module, "SightFunction", reinterpret_cast<PyObject*>(&g_type)) == 0;
}

}  // namespace rubriscope::binding
