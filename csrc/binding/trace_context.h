// Which span is innermost in this context: what producers of events ask. All of it holds the GIL.
#pragma once

#include <Python.h>

#include <string_view>

namespace rubriscope::binding {

/// The innermost span of this context (contextvars), open or the one this task was started in: a new
/// reference, or nullptr. Never leaves an exception set; costs a look at a counter in a process that has
/// entered no span.
PyObject* current_span();

/// What an event inside a span carries. Borrowed from the span.
struct SpanIds {
  std::string_view trace;   ///< of the MultimodalTracer's trace it stands in, else of its tree's root
  std::string_view parent;  ///< the span's own: "mem_1705180800_9f86d081884c7d65"
};
SpanIds ids_of_span(PyObject* span);

}  // namespace rubriscope::binding
