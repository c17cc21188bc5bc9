#include "rubriscope/binding/py_names.h"

namespace rubriscope::binding {

PyObject* import_once(PyObject*& cache, const char* module, const char* attribute) {
  if (cache == nullptr) {
    PyObject* const imported = PyImport_ImportModule(module);
    if (imported == nullptr) return nullptr;
    cache = PyObject_GetAttrString(imported, attribute);
    Py_DECREF(imported);
  }
  return cache;
}

PyTypeObject* tensor_type() {
  static PyObject* tensor = nullptr;
  if (tensor == nullptr) {
    PyObject* const modules = PyImport_GetModuleDict();
    PyObject* const torch = PyDict_GetItemString(modules, "torch");
    if (torch == nullptr) return nullptr;
    tensor = PyObject_GetAttrString(torch, "Tensor");
    if (tensor == nullptr) PyErr_Clear();  // torch is being imported: ask again later
  }
  return reinterpret_cast<PyTypeObject*>(tensor);
}

PyTypeObject* score_type() {
  static PyObject* score = nullptr;
  return reinterpret_cast<PyTypeObject*>(import_once(score, "rubriscope.score", "Score"));
}

PyObject* interned(PyObject*& cache, const char* text) {
  if (cache == nullptr) cache = PyUnicode_InternFromString(text);
  return cache;
}

}  // namespace rubriscope::binding
