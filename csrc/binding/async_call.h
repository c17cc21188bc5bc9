// Calls that wait: the state a coroutine needs to finish a rubric's call, and the way to find the observed
// call that a coroutine belongs to.
#pragma once

#include "rubriscope/binding/py_node.h"

namespace rubriscope::binding {

/// How many observed calls are coroutines now: while there are none, contextvars need no look.
extern std::uint64_t g_live_async_contexts;

/// The same as active_context(), with a look at the contextvars.
EvalContext* active_async_context();

/// The observed call this code is in: the thread's, or in a coroutine the context-local one. nullptr: none.
inline EvalContext* active_context() {
  return g_live_async_contexts == 0 ? current_context() : active_async_context();
}

/// Makes the coroutine that finishes a call.
///   created:   nothing has run; hooks and forward() run when it is awaited
///   forwarded: forward() gave `result`, an awaitable, which is taken over
/// `root_context` is the context that the coroutine owns and publishes, or nullptr when the node is no
/// observed root. nullptr with an exception set.
PyObject* make_coroutine(PyNode& node, PyObject* action, PyObject* observation, EvalContext* context,
                         EvalContext* root_context, std::uint64_t start, PyObject* awaitable);

/// Lets go of a context that nobody will use any more, telling coroutines that still hold its handle.
void close_context(EvalContext* context);

bool add_async_types(PyObject* module);

}  // namespace rubriscope::binding
