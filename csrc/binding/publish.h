// From a finished observed call to the observers' recorders.
#pragma once

#include <Python.h>

#include "rubriscope/binding/py_node.h"

namespace rubriscope::binding {

/// Gives the finished call to every observer of the root. An observer's failure is contained, counted and
/// reported, unless it was made with on_error="raise": then false with an exception set. An exception that is
/// set on entry (the call itself failed) is kept.
bool publish_call(PyNode& root, EvalContext& context, PyObject* action, PyObject* observation);

/// The exception that is set kept a call from being observed: every observer of the root contains it, as
/// publish_call() does. False with it set where it is to reach the caller.
bool contain_unobserved(PyNode& root);

/// Remembers a score whose number is still on a device; the snapshot completes when it has been copied.
void defer_score(PyNode& node, EvalContext* context, PyObject* tensor);

/// _publish_deferred(capsule, numbers): the numbers of a deferred call have arrived (rubriscope/_device.py).
PyObject* publish_deferred(PyObject*, PyObject* args);

}  // namespace rubriscope::binding
