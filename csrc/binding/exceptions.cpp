// The one place that maps C++ exceptions to Python ones.
#include <exception>
#include <new>

#include "rubriscope/binding/py_names.h"
#include "rubriscope/binding/py_node.h"
#include "rubriscope/core/errors.h"

namespace rubriscope::binding {

namespace {

void raise_ours(const char* name, const char* message) {
  PyObject* type = nullptr;
  if (import_once(type, "rubriscope.errors", name) == nullptr) return;
  PyErr_SetString(type, message);
  Py_DECREF(type);
}

}  // namespace

void raise_current_exception() {
  try {
    throw;
  } catch (const KeyError& error) {
    PyErr_SetString(PyExc_KeyError, error.what());
  } catch (const TypeError& error) {
    PyErr_SetString(PyExc_TypeError, error.what());
  } catch (const ValueError& error) {
    PyErr_SetString(PyExc_ValueError, error.what());
  } catch (const TimeoutError& error) {
    PyErr_SetString(PyExc_TimeoutError, error.what());
  } catch (const SystemError& error) {
    // OSError(errno, text, path) picks the subclass: FileNotFoundError, PermissionError, …
    PyObject* const arguments = error.path.empty()
                                    ? Py_BuildValue("(is)", error.code, error.what())
                                    : Py_BuildValue("(iss)", error.code, error.what(), error.path.c_str());
    if (arguments == nullptr) return;
    PyErr_SetObject(PyExc_OSError, arguments);
    Py_DECREF(arguments);
  } catch (const FormatError& error) {
    raise_ours("FormatError", error.what());
  } catch (const SealedError& error) {
    raise_ours("SealedError", error.what());
  } catch (const SinkError& error) {
    raise_ours("SinkError", error.what());
  } catch (const std::bad_alloc&) {
    PyErr_NoMemory();
  } catch (const std::exception& error) {
    PyErr_SetString(PyExc_RuntimeError, error.what());
  }
}

}  // namespace rubriscope::binding
