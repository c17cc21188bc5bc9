// Objects of Python modules that the engine calls, imported on first use and kept for the process's life.
#pragma once

#include <Python.h>

namespace rubriscope::binding {

/// `module.attribute`, a borrowed reference; nullptr with an exception set. Keep the result in a static.
PyObject* import_once(PyObject*& cache, const char* module, const char* attribute);

/// torch.Tensor where torch has been imported, else nullptr; never imports it, never sets an exception.
PyTypeObject* tensor_type();

/// rubriscope.score.Score, or nullptr with an exception set.
PyTypeObject* score_type();

/// An interned string, made once.
PyObject* interned(PyObject*& cache, const char* text);

/// A function as a method table holds it, whatever arguments it takes.
template <class Function>
PyCFunction as_method(Function* function) {
  return reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(function));
}

}  // namespace rubriscope::binding
